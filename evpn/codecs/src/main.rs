//! Decodes and encodes the same UPDATEs with the public Rust codecs that know EVPN, in turns, and prints nanoseconds per route.
//!
//! A codec takes part in a case only if what it decoded folds to the same number as the others' (`fold.rs`), and if what it
//! encodes from that reads as the same again. One that cannot is listed and not compared. With `--json` the table is one JSON
//! object.

mod bgpkit;
mod fold;
mod netgauze;
mod ours;
mod rustbgpd;
mod zetta;

use fold::Fold;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Routes of an UPDATE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Type 2 without an address.
    Mac,
    /// Type 2 with an IPv4 address.
    MacIpv4,
    /// Type 2 with an IPv6 address.
    MacIpv6,
    /// Type 3.
    Imet,
    /// Type 5, IPv4.
    Prefix4,
    /// Type 5, IPv6.
    Prefix6,
}

/// A codec under measurement.
pub trait Codec {
    /// A message as this codec has it.
    type Message;
    /// A whole message, its header too; `None` when it cannot, or finds fault.
    fn decode(&self, octets: &[u8]) -> Option<Self::Message>;
    /// Everything in it; `None` when something is not taken apart.
    fn fold(&self, message: &Self::Message) -> Option<Fold>;
    /// The whole message, its header too.
    fn encode(&self, message: &Self::Message) -> Option<Vec<u8>>;
}

/// Name, number of routes, kind.
const CASES: [(&str, u32, Kind); 8] = [
    ("Type 2, MAC only, 90 an UPDATE", 90, Kind::Mac),
    ("Type 2, IPv4, 90 an UPDATE", 90, Kind::MacIpv4),
    ("Type 2, IPv4, one", 1, Kind::MacIpv4),
    ("Type 2, IPv6, 70 an UPDATE", 70, Kind::MacIpv6),
    ("Type 3, 90 an UPDATE", 90, Kind::Imet),
    ("Type 3, one", 1, Kind::Imet),
    ("Type 5, IPv4, 90 an UPDATE", 90, Kind::Prefix4),
    ("Type 5, IPv6, 60 an UPDATE", 60, Kind::Prefix6),
];
const ROUNDS: usize = 101;
/// Routes per round.
const ROUTES: u32 = 9_000;

/// What a case is for one codec: how often decoded and encoded, timed in nanoseconds.
trait Runner {
    fn name(&self) -> &'static str;
    /// `None`: it does not take part, for the reason given.
    fn check(&self, octets: &[u8], want: Option<Fold>) -> Result<Fold, &'static str>;
    /// Whether it encodes what it decoded so that it reads the same.
    fn encodes(&self, octets: &[u8], want: Fold) -> bool;
    fn decode_ns(&self, octets: &[u8], times: u32) -> f64;
    fn encode_ns(&self, octets: &[u8], times: u32) -> f64;
}

struct Named<C>(&'static str, C);

impl<C: Codec> Runner for Named<C> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn check(&self, octets: &[u8], want: Option<Fold>) -> Result<Fold, &'static str> {
        // Some of them index without looking.
        let got = catch_unwind(AssertUnwindSafe(|| {
            let message = self.1.decode(octets).ok_or("refuses it")?;
            self.1.fold(&message).ok_or("does not take it apart")
        }));
        let got = got.map_err(|_| "panics")??;
        if want.is_some_and(|w| w != got) { Err("reads something else") } else { Ok(got) }
    }

    fn encodes(&self, octets: &[u8], want: Fold) -> bool {
        let ours = ours::Ours::new();
        catch_unwind(AssertUnwindSafe(|| {
            let again = self.1.encode(&self.1.decode(octets)?)?;
            ours.fold(&ours.decode(&again)?)
        }))
        .is_ok_and(|got| got == Some(want))
    }

    fn decode_ns(&self, octets: &[u8], times: u32) -> f64 {
        let mut sum = 0;
        let begun = Instant::now();
        for _ in 0..times {
            let message = self.1.decode(black_box(octets));
            sum ^= message.as_ref().and_then(|m| self.1.fold(m)).map_or(0, |f| f.0);
            drop(black_box(message));
        }
        black_box(sum);
        begun.elapsed().as_secs_f64() * 1e9
    }

    fn encode_ns(&self, octets: &[u8], times: u32) -> f64 {
        let message = self.1.decode(octets).expect("checked");
        let begun = Instant::now();
        for _ in 0..times {
            drop(black_box(self.1.encode(black_box(&message))));
        }
        begun.elapsed().as_secs_f64() * 1e9
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let json = std::env::args().any(|a| a == "--json");
    std::panic::set_hook(Box::new(|_| {}));
    let codecs: [Box<dyn Runner>; 5] = [
        Box::new(Named("vtepd", ours::Ours::new())),
        Box::new(Named("rustbgpd-wire 0.27", rustbgpd::Rustbgpd)),
        Box::new(Named("netgauze-bgp-pkt 0.13", netgauze::Netgauze)),
        Box::new(Named("zettabgp 0.6", zetta::Zetta::new())),
        Box::new(Named("bgpkit-parser 0.23", bgpkit::Bgpkit)),
    ];
    let mut table = Vec::new();
    for (case, n, kind) in CASES {
        let octets = ours::octets(kind, n);
        assert!(octets.len() <= 4096, "{case}: {} octets", octets.len());
        let want = codecs[0].check(&octets, None).expect("our own");
        let parts: Vec<_> = codecs.iter().map(|c| c.check(&octets, Some(want))).collect();
        let encodes: Vec<_> =
            codecs.iter().zip(&parts).map(|(c, p)| p.is_ok() && c.encodes(&octets, want)).collect();
        let mut ns = vec![(Vec::new(), Vec::new()); codecs.len()];
        let times = ROUTES / n;
        for round in 0..=ROUNDS {
            for (i, c) in codecs.iter().enumerate() {
                if parts[i].is_err() {
                    continue;
                }
                let per = f64::from(times * n);
                let decoded = c.decode_ns(&octets, times) / per;
                let encoded = if encodes[i] { c.encode_ns(&octets, times) / per } else { f64::NAN };
                // The first round warms up.
                if round > 0 {
                    ns[i].0.push(decoded);
                    ns[i].1.push(encoded);
                }
            }
        }
        for (i, c) in codecs.iter().enumerate() {
            let (decode, encode) = match &parts[i] {
                Ok(_) => (Ok(median(ns[i].0.clone())), encodes[i].then(|| median(ns[i].1.clone()))),
                Err(why) => (Err(*why), None),
            };
            table.push((case, c.name(), decode, encode));
        }
    }
    if json {
        let rows: Vec<_> = table
            .iter()
            .map(|(case, name, decode, encode)| {
                serde_json::json!({
                    "case": case,
                    "codec": name,
                    "decode_ns_per_route": decode.ok(),
                    "encode_ns_per_route": encode,
                    "why_not": decode.err(),
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "codecs": rows }));
        return;
    }
    println!("| routes | codec | decode, ns a route | to ours | encode, ns a route | to ours |");
    println!("|---|---|--:|--:|--:|--:|");
    let mut ours = (f64::NAN, f64::NAN);
    for (case, name, decode, encode) in table {
        if name == "vtepd" {
            ours = (decode.unwrap_or(f64::NAN), encode.unwrap_or(f64::NAN));
        }
        let cell = |x: Option<f64>, own: f64| match x {
            Some(x) => format!("{x:.1} | {:.1} ×", x / own),
            None => "cannot | –".to_owned(),
        };
        match decode {
            Ok(d) => println!("| {case} | {name} | {} | {} |", cell(Some(d), ours.0), cell(encode, ours.1)),
            Err(why) => println!("| {case} | {name} | {why} | – | – | – |"),
        }
    }
}
