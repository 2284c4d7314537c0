//! Byte layouts of the P2PSP wire generations, as views over `&[u8]`. No state.

pub mod b;
