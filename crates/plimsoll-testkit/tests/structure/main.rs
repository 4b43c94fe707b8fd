//! How the sources are built up: which module refers to which, in which words, and what is documented.

mod cycles;
mod modules;
mod public_docs;
mod words;
mod workspace;
