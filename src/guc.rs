//! The settings. What touches money or rights is for superusers; the worker's pace is for SIGHUP.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

static LATE_USAGE_LIMIT_SECONDS: GucSetting<i32> = GucSetting::<i32>::new(35 * 86_400);
static EXPIRATION_GRACE_SECONDS: GucSetting<i32> = GucSetting::<i32>::new(5);
static POSTING_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(200);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// How long ago usage may have happened and still be recorded.
pub fn late_usage_limit_seconds() -> i64 {
    i64::from(LATE_USAGE_LIMIT_SECONDS.get())
}

/// How long the worker lets pass after a grant's expiry, so that charges in flight are known.
pub fn expiration_grace_seconds() -> i64 {
    i64::from(EXPIRATION_GRACE_SECONDS.get())
}

/// The pause between two rounds of posting.
pub fn posting_interval() -> std::time::Duration {
    std::time::Duration::from_millis(POSTING_INTERVAL_MS.get().unsigned_abs().into())
}

/// The databases the launcher serves, as they are listed.
pub fn databases() -> String {
    DATABASES.get().map(|list| list.to_string_lossy().into_owned()).unwrap_or_default()
}

pub fn init() {
    GucRegistry::define_int_guc(
        c"exa_billing.late_usage_limit",
        c"How long ago usage may have happened and still be recorded.",
        c"Older usage is refused with 22023. Partitions are kept ready as far back as this.",
        &LATE_USAGE_LIMIT_SECONDS,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"exa_billing.expiration_grace",
        c"How long the background worker waits after a grant's expiry before it closes the grant.",
        c"Reads count an expiration from its very instant; the pause only lets charges in flight arrive.",
        &EXPIRATION_GRACE_SECONDS,
        0,
        86_400,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"exa_billing.posting_interval",
        c"The background worker's pause between two rounds of posting.",
        c"Figures are exact at any value; a longer pause makes each read add up more rows.",
        &POSTING_INTERVAL_MS,
        10,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"exa_billing.databases",
        c"The databases the background worker serves, separated by commas.",
        c"Needs exa_billing in shared_preload_libraries.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // A misspelt setting then fails at once instead of being kept as an unused placeholder.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"exa_billing".as_ptr()) };
}
