//! One user and one organization around an edge: what they did, in the order in which it is told.

use super::edges::{At, EDGES, at, elsewhere, hour_of, later, month_of, start_of};
use chrono::NaiveDate;
use fastrand::Rng;

pub const MICROSECOND: i64 = 1;
pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;
pub const DAY: i64 = 24 * HOUR;

/// How a charge gets into the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Exa,
    ExaResponse,
    ExaBatch,
    Spend { scheduled: bool },
    Ledger,
}

#[derive(Debug, Clone)]
pub struct Charge {
    pub at: At,
    /// The same instant with an offset, where it is told as text.
    pub text: Option<String>,
    pub way: Way,
    pub for_organization: bool,
    pub amount: i64,
}

impl Charge {
    pub fn is_exa(&self) -> bool {
        matches!(self.way, Way::Exa | Way::ExaResponse | Way::ExaBatch)
    }
}

#[derive(Debug, Clone)]
pub struct Grant {
    pub name: String,
    pub for_organization: bool,
    pub amount: i64,
    pub created: At,
    pub expiry: Option<At>,
}

#[derive(Debug, Clone)]
pub struct History {
    pub edge: At,
    pub user: String,
    pub organization: String,
    /// The overage rule: `split`, or `whole`.
    pub is_split: bool,
    /// From which month on which allowance is in force.
    pub allowances: [(NaiveDate, i64); 2],
    pub daily_limit: i64,
    pub charges: Vec<Charge>,
    /// After so many charges, all is posted.
    pub posted_after: usize,
    pub grants: Vec<Grant>,
    /// Hours around the edge whose rollups are not to be trusted.
    pub degraded: Option<(At, At)>,
    /// Instants at which questions are asked.
    pub moments: Vec<At>,
}

/// Far enough for every month, day, hour and window to have something before and after the edge.
const DISTANCES: [i64; 17] = [
    0,
    0,
    -MICROSECOND,
    -MICROSECOND,
    MICROSECOND,
    -HOUR,
    -HOUR - MICROSECOND,
    HOUR - MICROSECOND,
    HOUR,
    -HOUR / 2,
    HOUR / 2,
    -DAY,
    -DAY - MICROSECOND,
    DAY - MICROSECOND,
    DAY,
    -30 * DAY,
    7 * DAY,
];

/// Ahead of UTC, in minutes: of the zones the sessions are in, and one nobody lives in.
const OFFSETS: [i32; 7] = [0, -300, -240, 330, 630, 660, -44];

/// Instants that matter to an edge: the edge itself, its hour, its day and its month, and what lies
/// a microsecond, an hour or a day beside them.
pub fn near(edge: At, rng: &mut Rng) -> At {
    let anchors =
        [edge, edge, edge, hour_of(edge), start_of(edge.date_naive()), start_of(month_of(edge))];
    later(anchors[rng.usize(..anchors.len())], DISTANCES[rng.usize(..DISTANCES.len())])
}

impl History {
    /// A history that its seed decides, around one of the edges.
    pub fn random(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let edge = at(EDGES[rng.usize(..EDGES.len())].1);
        let charges =
            (0..rng.usize(4..11)).map(|_| charge(near(edge, rng), rng)).collect::<Vec<_>>();
        Self::with(format!("seed-{seed}"), edge, charges, rng)
    }

    /// A history of the edge itself: charges by the way on both sides of it, a microsecond apart.
    pub fn at_edge(number: usize) -> Self {
        let rng = &mut Rng::with_seed(number as u64);
        let edge = at(EDGES[number].1);
        let distances = [-HOUR, -MICROSECOND, -MICROSECOND, 0, 0, HOUR - MICROSECOND];
        let mut charges: Vec<Charge> =
            distances.iter().map(|distance| charge(later(edge, *distance), rng)).collect();
        charges[1].way = Way::Exa;
        charges[2].way = Way::Ledger;
        charges[3].way = Way::ExaBatch;
        charges[4].way = Way::Spend { scheduled: false };
        for charge in &mut charges[1..5] {
            charge.for_organization = true;
        }
        let moments = [-MICROSECOND, 0].map(|step| later(edge, step)).to_vec();
        Self { moments, ..Self::with(format!("edge-{number}"), edge, charges, rng) }
    }

    fn with(name: String, edge: At, charges: Vec<Charge>, rng: &mut Rng) -> Self {
        let month = month_of(edge);
        let grants = (0..rng.usize(2..6)).map(|number| grant(number, edge, rng)).collect();
        let degraded = rng.bool().then(|| {
            let from = later(hour_of(edge), rng.i64(-2..1) * HOUR);
            (from, later(from, rng.i64(1..4) * HOUR))
        });
        Self {
            edge,
            user: format!("u-{name}"),
            organization: format!("o-{name}"),
            is_split: rng.bool(),
            allowances: [
                (at("2000-01-01T00:00:00Z").date_naive(), rng.i64(0..4_000)),
                (month, rng.i64(0..4_000)),
            ],
            daily_limit: rng.i64(1..9_000),
            posted_after: rng.usize(..=charges.len()),
            charges,
            grants,
            degraded,
            moments: [-DAY, -MICROSECOND, 0, MICROSECOND, DAY]
                .map(|step| later(edge, step))
                .to_vec(),
        }
    }

    /// The same for other owners, so that another session can write it.
    pub fn of(&self, name: &str) -> Self {
        Self {
            user: format!("{}-{name}", self.user),
            organization: format!("{}-{name}", self.organization),
            ..self.clone()
        }
    }
}

fn charge(at: At, rng: &mut Rng) -> Charge {
    let ways = [
        Way::Exa,
        Way::ExaResponse,
        Way::ExaBatch,
        Way::Spend { scheduled: false },
        Way::Spend { scheduled: true },
        Way::Ledger,
    ];
    Charge {
        at,
        text: rng.bool().then(|| elsewhere(at, OFFSETS[rng.usize(..OFFSETS.len())])),
        way: ways[rng.usize(..ways.len())],
        for_organization: rng.bool(),
        amount: rng.i64(1..3_000),
    }
}

/// Created before the edge or at it, expiring at it or soon after, so that each order occurs. No two
/// of one owner have both instants in common: their ids would decide which goes first.
fn grant(number: usize, edge: At, rng: &mut Rng) -> Grant {
    let created = near(later(edge, -DAY), rng);
    let unique = i64::try_from(number).expect("few grants") * 10 * SECOND;
    let expiry = later(near(edge, rng).max(created), if rng.bool() { 0 } else { HOUR });
    let expiry = if expiry <= created { later(created, MICROSECOND) } else { expiry };
    Grant {
        name: format!("grant {number}"),
        for_organization: rng.bool(),
        amount: rng.i64(1..5_000),
        created: later(created, -unique),
        expiry: (rng.u8(..6) > 0).then_some(expiry),
    }
}
