//! A worker process as the launcher sees it.

use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::pg_sys;

/// The server's handle of a process that was started; its memory goes with it.
pub struct Process(*mut pg_sys::BackgroundWorkerHandle);

impl Process {
    /// None where the server has no room for another one.
    pub fn start(builder: &BackgroundWorkerBuilder) -> Option<Self> {
        let mut worker: pg_sys::BackgroundWorker = builder.into();
        let mut handle = std::ptr::null_mut();
        // SAFETY: both are set; the server makes the handle when it says so.
        let has_room =
            unsafe { pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle) };
        has_room.then(|| Self(handle))
    }

    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle is the server's own.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &raw mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }

    /// Asks it to end, wherever it is.
    pub fn terminate(&self) {
        // SAFETY: as above; of a process that has ended nothing is asked.
        unsafe { pg_sys::TerminateBackgroundWorker(self.0) };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the handle was made for this one alone.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}
