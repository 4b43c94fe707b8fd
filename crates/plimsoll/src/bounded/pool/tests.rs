mod against_model;
mod cost;
mod model;
mod rules;
mod shell;
