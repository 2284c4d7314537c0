//! The smallest peer: follows a node, plays to any local player.
