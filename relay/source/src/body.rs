//! A body as it comes, whichever way it is framed.

use relay_wire::http::{Body, Chunked, Refusal};

/// Takes the framing off a body, piece by piece.
#[derive(Debug)]
pub(crate) enum Unframe {
    UntilClose,
    Length(u64),
    Chunked(Chunked),
    /// Complete: what still comes is discarded.
    Done,
}

impl Unframe {
    pub(crate) fn new(body: Body) -> Self {
        match body {
            Body::None | Body::Length(0) => Unframe::Done,
            Body::Length(n) => Unframe::Length(n),
            Body::Chunked => Unframe::Chunked(Chunked::new()),
            Body::UntilClose => Unframe::UntilClose,
        }
    }

    /// Hand the payload in `bytes` to `out`.
    pub(crate) fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut impl FnMut(&'a [u8]),
    ) -> Result<(), Refusal> {
        match self {
            Unframe::UntilClose if !bytes.is_empty() => out(bytes),
            Unframe::UntilClose | Unframe::Done => {}
            Unframe::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                if take > 0 {
                    out(&bytes[..take]);
                }
                *left -= take as u64;
                if *left == 0 {
                    *self = Unframe::Done;
                }
            }
            Unframe::Chunked(chunked) => {
                if chunked.decode(bytes, out)?.1 {
                    *self = Unframe::Done;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finished(&self) -> bool {
        matches!(self, Unframe::Done)
    }

    /// Whether the peer may close here without cutting the body short.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Unframe::Done | Unframe::UntilClose)
    }
}
