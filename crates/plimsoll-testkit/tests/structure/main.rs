//! How the sources are built up: which module refers to which, and in which words.

mod cycles;
mod modules;
mod words;
mod workspace;
