//! What runs by itself, or by `run_maintenance()`: each job bounded, in a transaction of its own, and
//! only where background work was started.

mod job;
mod proof;
mod round;
mod runs;
mod shared;

pub use job::{Done, Job, Pace};
pub use runs::Log;
pub use shared::{beat, follows, init, is_preloaded, last as last_beats, lead};
