//! The only room that talks to a kernel: io_uring and mio drivers behind one contract.
