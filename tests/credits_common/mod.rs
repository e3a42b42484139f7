//! What the tests of credits share: histories written down in the order in which they happen,
//! and what the books say of them.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, Server, one, run_sql};
use crate::usage_common::no_free_allowance;
use postgres::{Client, GenericClient};

/// The histories of the tests lie some years back; everything in them is paid.
pub const SESSION: &str = "-c search_path=exa_billing,public -c exa_billing.late_usage_limit=3000d";

/// A new database with books in which every request is paid.
pub fn books() -> (Database, Client) {
    let db = Server::shared().books();
    let mut client = session(&db);
    no_free_allowance(&mut client);
    (db, client)
}

/// A session that may record what happened years ago.
pub fn session(db: &Database) -> Client {
    db.client_with(SESSION)
}

/// One owner, whose history a test writes.
pub struct Owner {
    pub kind: &'static str,
    pub id: String,
}

pub fn user(id: &str) -> Owner {
    Owner { kind: "user", id: id.to_owned() }
}

pub fn organization(id: &str) -> Owner {
    Owner { kind: "organization", id: id.to_owned() }
}

impl Owner {
    /// The first two arguments of most functions.
    pub fn arguments(&self) -> String {
        format!("'{}', '{}'", self.kind, self.id)
    }

    /// A grant that bears its name as description; expires at `expiry`, or never when it is empty.
    pub fn grant(&self, c: &mut Client, name: &str, amount: i64, created: &str, expiry: &str) {
        let expiry = if expiry.is_empty() { "null".to_owned() } else { format!("'{expiry}'") };
        run_sql(
            c,
            &format!(
                "select exa_billing.grant_credit({}, {amount}, {expiry}, null, '{name}', false, null, '{created}')",
                self.arguments()
            ),
        );
    }

    /// A charge of the language models' gateway.
    pub fn llm(&self, c: &mut Client, amount: i64, at: &str) {
        run_sql(
            c,
            &format!(
                "select exa_billing.record_spend({}, {amount}, 'variable', 'ai_gateway', 'llm', created_at => '{at}')",
                self.arguments()
            ),
        );
    }

    /// An Exa request, which is paid.
    pub fn exa(&self, c: &mut Client, amount: i64, at: &str) {
        let (actor, organization) = match self.kind {
            "user" => (format!("'{}'", self.id), "null".to_owned()),
            _ => ("'a-member'".to_owned(), format!("'{}'", self.id)),
        };
        let call = format!(
            "select charged_microdollars from exa_billing.record_exa_usage(
                 {actor}, '/search', {amount}, {organization}, created_at => '{at}')"
        );
        assert_eq!(one::<i64>(c, &call, &[]), amount, "not all of it is paid");
    }

    pub fn expire(&self, c: &mut Client, as_of: &str) -> i64 {
        one(c, &format!("select exa_billing.expire_credits({}, '{as_of}')", self.arguments()), &[])
    }

    pub fn close_out(&self, c: &mut Client, as_of: &str) -> i64 {
        let sql = format!("select exa_billing.close_out_credits({}, '{as_of}')", self.arguments());
        one(c, &sql, &[])
    }

    /// Credit transactions in time order: name, amount, original and expiration baseline.
    #[track_caller]
    pub fn ledger(&self, c: &mut impl GenericClient) -> Vec<Entry> {
        let sql = "select description, amount_microdollars, original_baseline_microdollars_used,
                          expiration_baseline_microdollars_used
                   from exa_billing.credit_transactions where owner_kind = $1 and owner_id = $2
                   order by created_at, id";
        let rows = c.query(sql, &[&self.kind, &self.id]).expect("the ledger");
        rows.iter()
            .map(|row| {
                (
                    row.get::<_, Option<String>>(0).unwrap_or_default(),
                    row.get(1),
                    row.get(2),
                    row.get(3),
                )
            })
            .collect()
    }

    /// The closing rows in the order in which grants are closed: name of the grant, date, amount
    /// and usage before it.
    #[track_caller]
    pub fn closures(&self, c: &mut impl GenericClient) -> Vec<(String, String, i64, i64)> {
        let sql = "select g.description, to_char(e.created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
                          e.amount_microdollars, e.original_baseline_microdollars_used
                   from exa_billing.credit_transactions as e
                   join exa_billing.credit_transactions as g on g.id = e.original_transaction_id
                   where e.owner_kind = $1 and e.owner_id = $2 and e.credit_category = 'credits_expired'
                     and e.expiry_date is null and e.is_free = g.is_free
                   order by e.created_at, g.expiry_date, g.created_at, g.id";
        let rows = c.query(sql, &[&self.kind, &self.id]).expect("the closing rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    /// Names of the closed grants with the closing amounts.
    #[track_caller]
    pub fn expired(&self, c: &mut impl GenericClient) -> Vec<(String, i64)> {
        self.closures(c).into_iter().map(|(name, _, amount, _)| (name, amount)).collect()
    }

    /// The expiration baseline of a grant.
    #[track_caller]
    pub fn baseline(&self, c: &mut impl GenericClient, name: &str) -> i64 {
        let sql =
            "select expiration_baseline_microdollars_used from exa_billing.credit_transactions
                   where owner_kind = $1 and owner_id = $2 and description = $3";
        one(c, sql, &[&self.kind, &self.id, &name])
    }

    /// Acquired, used and left, with the expirations that are due at `as_of`.
    #[track_caller]
    pub fn figures(&self, c: &mut impl GenericClient, as_of: &str) -> (i64, i64, i64) {
        let sql =
            format!("select * from exa_billing.account_balance({}, '{as_of}')", self.arguments());
        let row = c.query_one(&sql, &[]).expect("the balance");
        (row.get(0), row.get(1), row.get(2))
    }

    #[track_caller]
    pub fn balance(&self, c: &mut impl GenericClient, as_of: &str) -> i64 {
        self.figures(c, as_of).2
    }

    /// When credit expires next, and how much would.
    #[track_caller]
    pub fn next(&self, c: &mut impl GenericClient, as_of: &str) -> (Option<String>, Option<i64>) {
        let sql = format!(
            "select to_char(next_credit_expiration_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                    next_expiration_microdollars
             from exa_billing.account_balance({}, '{as_of}')",
            self.arguments()
        );
        let row = c.query_one(&sql, &[]).expect("the balance");
        (row.get(0), row.get(1))
    }

    #[track_caller]
    pub fn recompute(&self, c: &mut impl GenericClient, arguments: &str) -> Recomputed {
        let sql = format!(
            "select * from exa_billing.recompute_{}_balances('{}'{arguments})",
            self.kind, self.id
        );
        let row = match c.query_one(&sql, &[]) {
            Ok(row) => row,
            Err(error) => panic!("{sql}\n{error:?}"),
        };
        let owner: (String, String) = (row.get("owner_kind"), row.get("owner_id"));
        assert_eq!(owner, (self.kind.to_owned(), self.id.clone()));
        Recomputed {
            used: (row.get("previous_microdollars_used"), row.get("new_microdollars_used")),
            acquired: (
                row.get("previous_total_microdollars_acquired"),
                row.get("new_total_microdollars_acquired"),
            ),
            error: row.get("balance_error_microdollars"),
            adjustment: row.get("accounting_adjustment_microdollars"),
            original_changed: row.get("original_baselines_changed"),
            expiration_changed: row.get("expiration_baselines_changed"),
            late_arrivals: row.get("late_arrivals"),
            applied: row.get("applied"),
        }
    }

    /// Recomputing finds all as it should be, `used` and `acquired` being these.
    #[track_caller]
    pub fn assert_recomputed(&self, c: &mut impl GenericClient, used: i64, acquired: i64) {
        for arguments in [", true", "", ", false, false"] {
            let found = self.recompute(c, arguments);
            let expected = Recomputed {
                applied: !arguments.contains("true"),
                ..Recomputed::unchanged(used, acquired)
            };
            assert_eq!(found, expected, "recompute{arguments} of {}", self.id);
        }
    }
}

pub type Entry = (String, i64, i64, Option<i64>);

pub fn entry(name: &str, amount: i64, original: i64, expiration: Option<i64>) -> Entry {
    (name.to_owned(), amount, original, expiration)
}

/// `("A", -50)` as `expired` tells it.
pub fn named(entries: &[(&str, i64)]) -> Vec<(String, i64)> {
    entries.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

/// A row of `recompute_result`: previous and new figures as pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recomputed {
    pub used: (i64, i64),
    pub acquired: (i64, i64),
    pub error: i64,
    pub adjustment: i64,
    pub original_changed: i64,
    pub expiration_changed: i64,
    pub late_arrivals: i64,
    pub applied: bool,
}

impl Recomputed {
    pub fn unchanged(used: i64, acquired: i64) -> Self {
        Recomputed {
            used: (used, used),
            acquired: (acquired, acquired),
            error: 0,
            adjustment: 0,
            original_changed: 0,
            expiration_changed: 0,
            late_arrivals: 0,
            applied: true,
        }
    }
}

/// Changes what only the functions may change, as damage or another system would have left it.
pub fn plant(c: &mut Client, change: &str) {
    run_sql(
        c,
        &format!(
            "alter table exa_billing.credit_transactions disable trigger by_functions_only;
             {change};
             alter table exa_billing.credit_transactions enable always trigger by_functions_only"
        ),
    );
}

pub fn post(c: &mut Client) {
    run_sql(c, "select exa_billing.post_spend(1000000)");
    let waiting: i64 = one(c, "select count(*) from exa_billing.unposted_spend", &[]);
    assert_eq!(waiting, 0, "not all is posted");
}
