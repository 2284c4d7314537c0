//! Container scanners: header and join points for TS, FLV, Ogg, WebM, fMP4, MP3, ADTS.
