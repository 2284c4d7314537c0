//! The control plane in front of a real relay, over real sockets.
