//! P2PSP splitter and peer rules, and the stand-alone splitter program.
