//! Texts: hostile ones, and those that an argument of that name expects.

use crate::pools::{ORGANIZATIONS, Pools, Subject, USERS};
use fastrand::Rng;

/// A text as SQL. Backslashes stand for themselves whatever the session's settings say.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

const HOSTILE: &[&str] = &[
    "",
    " ",
    "  padded  ",
    "'",
    "''",
    "\"",
    "\\",
    "\\\\",
    "\\'",
    "%",
    "%s%s%n%x",
    "%1$s",
    "{}",
    "{0}",
    "$1",
    "$$",
    "\u{1}",
    "\u{7f}",
    "\t",
    "a\nb",
    "\r\n",
    "\u{a0}",
    "\u{200b}",
    "\u{feff}",
    "\u{202e}abc",
    "\u{fffd}",
    "\u{10ffff}",
    "👩‍🚀",
    "é",
    "e\u{301}",
    "ß",
    "İ",
    "𝄞",
    "١٢٣",
    "null",
    "NULL",
    "None",
    "nil",
    "true",
    "0",
    "-1",
    "1e400",
    "NaN",
    "Infinity",
    "'; DROP TABLE exa_billing.accounts; --",
    "' OR '1'='1",
    "x'); SELECT pg_sleep(1); --",
    "1; COMMIT",
    "/*",
    "*/",
    "--",
    "exa_billing.accounts",
    "pg_class",
    "pg_catalog.pg_authid",
    "postgres",
    "PUBLIC",
    "{\"a\": 1}",
    "[",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "\\x00",
    "\\u0000",
    "a,b",
    "a;b",
    "a|b",
    "a/b",
    "user",
    "organization",
    "everyone",
    "*",
    "exa",
    "spend",
    "ann",
    "acme",
    "2026-11-22",
    "now",
    "infinity",
];

/// As SQL: hostile, or long in characters, bytes or escapes.
pub fn hostile(rng: &mut Rng) -> String {
    let unit = ["x", "é", "𝄞", "'", "\\", " ", "%s", "\u{1}", "/"][rng.usize(..9)];
    match rng.u16(..200) {
        0 => format!("repeat({}, 1000000)", literal(unit)),
        1..=3 => format!("repeat({}, {})", literal(unit), rng.usize(2..30_000)),
        // At a limit of length, one below and one above.
        4..=16 => {
            let limit = [63, 64, 80, 128, 255, 500, 1024, 2000][rng.usize(..8)];
            format!("repeat({}, {})", literal(unit), limit + rng.usize(..3) - 1)
        }
        17..=40 => {
            let characters = (0..rng.usize(1..12)).map(|_| rng.char('\u{1}'..'\u{2fff}'));
            literal(&characters.collect::<String>())
        }
        _ => literal(HOSTILE[rng.usize(..HOSTILE.len())]),
    }
}

/// The text of an argument of that name, out of words that are known where it wants such.
pub fn fitting(rng: &mut Rng, name: &str, subject: &Subject, pools: &Pools) -> Option<String> {
    let any = |rng: &mut Rng, words: &[&str]| Some(literal(words[rng.usize(..words.len())]));
    match name {
        "owner_kind" => Some(literal(&subject.owner_kind)),
        "owner_id" => Some(literal(&subject.owner_id)),
        "user_id" => Some(literal(&subject.user_id)),
        "organization_id" if rng.u8(..3) == 0 => Some("NULL".to_owned()),
        "organization_id" => Some(literal(&subject.organization_id)),
        "actor_user_id" => Some(literal(&subject.actor)),
        "path" => any(
            rng,
            &["/search", "/contents", "/findSimilar", "/answer", "/context", "/", "/x?y=%s'"],
        ),
        "idempotency_key" => match rng.u8(..4) {
            0 => Some("NULL".to_owned()),
            1 => rng.choice(&pools.keys).map(|key| literal(key)),
            _ => Some(literal(&format!("key-{}", rng.u32(..100_000)))),
        },
        "spend_category" => any(rng, &["variable", "scheduled"]),
        "source" => any(rng, &["ai_gateway", "kiloclaw", "coding_plan", "other", "shop", "%s"]),
        "product_key" | "feature_key" | "model_or_plan_key" | "provider_key" => any(
            rng,
            &["llm", "chat", "minimax/minimax-m3", "minimax", "other", " padded ", "!?", ""],
        ),
        "role" => any(rng, &["owner", "billing_manager", "member"]),
        "range" => any(rng, &["1h", "24h", "7d", "30d", "90d"]),
        "filter" => any(rng, &["all", "alerts", "suggestions", "reviews", "settings"]),
        "overage_rule" => any(rng, &["whole", "split"]),
        "on_delete" => any(rng, &["reverse", "keep"]),
        "source_name" => match rng.bool() {
            true => rng.choice(&pools.sources).map(|source| literal(source)),
            false => any(rng, &["llm", "taken", "led'ger", "%s", "a.b"]),
        },
        "reason" | "description" | "error" | "credit_category" | "feature_id" | "request_type" => {
            match rng.u8(..3) {
                0 => Some(hostile(rng)),
                1 => Some("NULL".to_owned()),
                _ => any(rng, &["by hand", "a refund of 5%", "it's 'quoted'", "zwei\nZeilen"]),
            }
        }
        _ => None,
    }
}

/// A text that means something somewhere in the books, though perhaps not here.
pub fn somebodys(rng: &mut Rng, pools: &Pools) -> String {
    let found = match rng.u8(..5) {
        0 => rng.choice(USERS).map(|id| (*id).to_owned()),
        1 => rng.choice(ORGANIZATIONS).map(|id| (*id).to_owned()),
        2 => rng.choice(&pools.keys).cloned(),
        3 => rng.choice(&pools.sources).cloned(),
        _ => pools.any_id(rng),
    };
    found.map_or_else(|| "NULL".to_owned(), |text| literal(&text))
}
