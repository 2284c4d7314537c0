//! The splitter's side of P2PSP's sets of rules. They are told what happened and what time it is, and asked what
//! they want.

mod acs;
mod action;
mod arrivals;
mod dbs;
mod farewell;
mod ledger;
mod lrs;
mod nts;
mod roster;
mod secured;

pub use action::{Action, Input, Note, Refusal, Why};
pub use dbs::{Source, Splitter};
pub use secured::{Secured, SecuredConfig, SecuredInput, SecuredStats};
