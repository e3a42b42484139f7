//! The settings. What touches money or rights is for superusers; the worker's pace is for SIGHUP.

use crate::time::MICROSECONDS_PER_HOUR;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

static LATE_USAGE_LIMIT_SECONDS: GucSetting<i32> = GucSetting::<i32>::new(35 * 86_400);
static EXPIRATION_GRACE_SECONDS: GucSetting<i32> = GucSetting::<i32>::new(5);
static POSTING_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(200);
static EVALUATION_DELAY_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static USER_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TRUST_JWT_CLAIMS: GucSetting<bool> = GucSetting::<bool>::new(false);
static INSTANCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
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

/// How long after an owner's first charge that was not evaluated its spend is evaluated.
pub fn evaluation_delay_microseconds() -> i64 {
    i64::from(EVALUATION_DELAY_MS.get()) * 1_000
}

/// How long an owner without alerts is left alone after an evaluation. Once an hour everybody is evaluated.
pub fn evaluation_rest_microseconds() -> i64 {
    (30 * evaluation_delay_microseconds()).min(MICROSECONDS_PER_HOUR)
}

/// The end user whom this session serves, as the application has set it.
pub fn user_id() -> Option<CString> {
    USER_ID.get()
}

/// Whether the claims of a web token, which the session itself may set, name the end user too.
pub fn trusts_jwt_claims() -> bool {
    TRUST_JWT_CLAIMS.get()
}

/// What this server is called, so that a copy of its disks can be called something else.
pub fn instance() -> String {
    INSTANCE.get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The databases the launcher serves, in the order in which they are listed, each once.
pub fn databases() -> Vec<String> {
    let list = DATABASES.get().map(|list| list.to_string_lossy().into_owned());
    database_names(&list.unwrap_or_default())
}

/// The names in a comma-separated list, in order, each once. One with a comma in it, or with blanks
/// around it, stands in double quotes, and a double quote in these is doubled; any other is taken as it
/// is.
fn database_names(list: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (name, after) = first_name(rest);
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        rest = after;
    }
    names
}

/// The first name of a list, and the list after it.
fn first_name(list: &str) -> (String, &str) {
    if let Some(inside) = list.trim_start().strip_prefix('"') {
        let mut name = String::new();
        let mut letters = inside.char_indices().peekable();
        while let Some((place, letter)) = letters.next() {
            if letter == '"' && letters.next_if(|(_, next)| *next == '"').is_none() {
                let after = inside[place + 1..].split_once(',').map_or("", |(_, after)| after);
                return (name, after);
            }
            name.push(letter);
        }
    }
    let (name, after) = list.split_once(',').unwrap_or((list, ""));
    (name.trim().to_owned(), after)
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
        1,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"exa_billing.evaluation_delay",
        c"How long after an owner's first charge that was not evaluated its spend is evaluated.",
        c"Counted from the posting of that charge; further charges do not put it off. Owners without alerts are left alone for thirty times as long, an hour at most, after each evaluation.",
        &EVALUATION_DELAY_MS,
        0,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"exa_billing.user_id",
        c"The end user whom this session serves: row security shows it that user's rows.",
        c"Who may set it decides who anybody is: superusers, and roles with SET on this parameter.",
        &USER_ID,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"exa_billing.trust_jwt_claims",
        c"Whether sub of request.jwt.claims names the end user whom a session serves.",
        c"Only behind a gateway that sets the claims itself and lets nobody else run SQL.",
        &TRUST_JWT_CLAIMS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"exa_billing.instance",
        c"What this server is called; a copy of its disks should be called something else.",
        c"Background work goes on only where it was started under the same name.",
        &INSTANCE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"exa_billing.databases",
        c"The databases the background worker serves, separated by commas.",
        c"Needs exa_billing in shared_preload_libraries. A name with a comma stands in double quotes.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // A misspelt setting then fails at once instead of being kept as an unused placeholder.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"exa_billing".as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::database_names;

    #[test]
    fn lists_are_forgiving() {
        assert_eq!(database_names(" app, billing,,app ,"), ["app", "billing"]);
        assert_eq!(database_names("Second one, o'brien"), ["Second one", "o'brien"]);
        assert!(database_names("").is_empty() && database_names(" , \"\" ,").is_empty());
    }

    #[test]
    fn names_with_commas_and_blanks_are_quoted() {
        let list = r#" "a,b" , " c ","say ""hi""",x"y,"x, "#;
        assert_eq!(database_names(list), ["a,b", " c ", "say \"hi\"", "x\"y", "\"x"]);
    }
}
