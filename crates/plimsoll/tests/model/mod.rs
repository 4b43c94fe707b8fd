//! The reference model of supervisors, and the world that it is compared with.
#![allow(unreachable_pub, reason = "shared by the tests of one binary")]

pub mod plan;
pub mod reference;
pub mod world;
