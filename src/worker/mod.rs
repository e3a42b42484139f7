//! What runs by itself: a launcher, and per database a worker that posts and does
//! whatever else has to be done from time to time.
//!
//! Neither is needed for the books to be exact; posting only makes reads cheap.

mod database;
mod launcher;
mod process;
mod restart;
mod turns;

/// Registers the launcher when the server loads the library at its start; elsewhere there is
/// nothing to start.
pub fn init() {
    launcher::register();
}
