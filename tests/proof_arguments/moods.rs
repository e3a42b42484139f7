//! The circumstances of some calls in a row: who calls, with which settings, in what transaction.

use crate::pools::USERS;
use crate::texts::literal;
use crate::world::ROLES;
use fastrand::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// Each call is one of its own.
    None,
    /// Calls share one, which ends with the first error.
    Shared,
    /// Each has a savepoint before it.
    Savepoints,
}

#[derive(Debug, Clone)]
pub struct Mood {
    /// None for the superuser.
    pub role: Option<&'static str>,
    pub settings: Vec<String>,
    pub transaction: Transaction,
    pub begin: &'static str,
    pub is_read_only: bool,
    /// The session says whom it serves, perhaps wrongly.
    pub has_identity: bool,
}

const SETTINGS: &[&str] = &[
    "TimeZone = 'Pacific/Auckland'",
    "TimeZone = 'America/St_Johns'",
    "TimeZone = '-13:45'",
    "DateStyle = 'German'",
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'Postgres, MDY'",
    "IntervalStyle = 'sql_standard'",
    "IntervalStyle = 'iso_8601'",
    "search_path = ''",
    "search_path = 'exa_billing, public'",
    "search_path = 'pg_temp, public'",
    "row_security = off",
    "work_mem = '64kB'",
    "enable_indexscan = off",
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_partition_pruning = off",
    "plan_cache_mode = force_custom_plan",
    "plan_cache_mode = force_generic_plan",
    "session_replication_role = replica",
    "client_min_messages = error",
    "client_min_messages = debug1",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "transform_null_equals = on",
    "array_nulls = off",
    "default_transaction_deferrable = on",
    "geqo_threshold = 2",
    "join_collapse_limit = 1",
    "check_function_bodies = off",
    "constraint_exclusion = on",
    "lc_messages = 'C'",
    "exa_billing.late_usage_limit = 0",
    "exa_billing.late_usage_limit = '10 min'",
    "exa_billing.late_usage_limit = '400 d'",
    "exa_billing.late_usage_limit = '900 d'",
    "request.jwt.claims = 'no json'",
    "lock_timeout = '50s'",
];

/// What the session says of the user whom it serves.
fn identity(rng: &mut Rng) -> Vec<String> {
    let user = literal(USERS[rng.usize(..USERS.len())]);
    let claims = [
        "{\"sub\": \"ann\"}",
        "{\"sub\": 5}",
        "[]",
        "",
        "{\"sub\": \" ann\"}",
        "{}",
        "{\"sub\": \"bob\"}",
    ];
    let trusted = |rng: &mut Rng| {
        let claims = literal(claims[rng.usize(..claims.len())]);
        vec![
            "exa_billing.trust_jwt_claims = on".to_owned(),
            format!("request.jwt.claims = {claims}"),
        ]
    };
    match rng.u8(..6) {
        0 => trusted(rng),
        1 => [trusted(rng), vec![format!("exa_billing.user_id = {user}")]].concat(),
        2 => vec!["exa_billing.user_id = ' padded'".to_owned()],
        _ => vec![format!("exa_billing.user_id = {user}")],
    }
}

impl Mood {
    pub fn any(rng: &mut Rng, major: i32) -> Mood {
        let role = (rng.u8(..5) > 2).then(|| ROLES[rng.usize(..ROLES.len())]);
        let has_identity = rng.u8(..8) == 0 || role == Some("web") && rng.u8(..8) > 0;
        let mut settings = if has_identity { identity(rng) } else { Vec::new() };
        let is_read_only = rng.u8(..12) == 0;
        if is_read_only {
            settings.push("default_transaction_read_only = on".to_owned());
        }
        if rng.u8(..5) == 0 {
            let level = rng.choice(["repeatable read", "serializable", "read uncommitted"]);
            settings
                .extend(level.map(|level| format!("default_transaction_isolation = '{level}'")));
        }
        if rng.u8(..30) == 0 {
            let name = if major < 16 { "force_parallel_mode" } else { "debug_parallel_query" };
            settings.push(format!("{name} = on"));
        }
        for _ in 0..rng.u8(..3) {
            settings.push(SETTINGS[rng.usize(..SETTINGS.len())].to_owned());
        }
        let transaction = match rng.u8(..8) {
            0 | 1 => Transaction::Shared,
            2 => Transaction::Savepoints,
            _ => Transaction::None,
        };
        let begins = [
            "BEGIN",
            "BEGIN",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
        ];
        let begin = begins[rng.usize(..begins.len())];
        Mood { role, settings, transaction, begin, is_read_only, has_identity }
    }

    /// Row security is switched off: for whom there are policies, reading is an error then.
    pub fn sees_all_or_fails(&self) -> bool {
        self.settings.iter().any(|setting| setting == "row_security = off")
    }

    /// The statements that bring a session into it from whatever it was in.
    pub fn statements(&self) -> String {
        let mut all = "RESET ROLE; RESET ALL".to_owned();
        for setting in &self.settings {
            all += &format!("; SET {setting}");
        }
        if let Some(role) = self.role {
            all += &format!("; SET ROLE {role}");
        }
        all
    }
}
