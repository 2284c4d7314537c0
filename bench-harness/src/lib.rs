//! Crowds and clocks: sources, listeners, floors, comparisons, reports.
