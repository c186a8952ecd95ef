//! Shared by the wire tests: golden vectors and their context.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::format_collect, reason = "tests")]

pub mod pcap;
pub mod render;

use evpn::wire::{DecodeCtx, Decoded, EncodeCtx, Family, decode, frame_len};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A directory below `evpn/tests`.
pub fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// One golden vector.
pub struct Vector {
    pub file: String,
    pub id: String,
    pub bytes: Vec<u8>,
    pub json: Value,
}

impl Vector {
    pub fn is_bgp(&self) -> bool {
        self.json["wire"] == "bgp"
    }
    /// Has a required reaction; some of these are well-formed octets.
    pub fn is_defective(&self) -> bool {
        !self.json["expect"].is_null()
    }
    pub fn families(&self) -> Vec<Family> {
        names(&self.json["context"]["families"])
    }
    pub fn decode_ctx(&self) -> DecodeCtx {
        let c = &self.json["context"];
        DecodeCtx {
            as4: c["as4"] == true,
            ibgp: c["peer"] == "ibgp",
            families: self.families(),
            add_path: names(&c["addpath"]),
            max_len: if c["extended_message"] == true { 65535 } else { 4096 },
            enhanced_refresh: true,
        }
    }
    /// Every message of the stream; none may be refused.
    pub fn messages(&self) -> Vec<Decoded> {
        let (mut rest, ctx, mut out) = (&self.bytes[..], self.decode_ctx(), Vec::new());
        while !rest.is_empty() {
            let n = frame_len(rest, ctx.max_len).unwrap().unwrap();
            out.push(decode(&rest[..n], &ctx).unwrap_or_else(|e| panic!("{}: {e:?}", self.id)));
            rest = &rest[n..];
        }
        out
    }
    pub fn encode_ctx(&self) -> EncodeCtx {
        let c = self.decode_ctx();
        EncodeCtx { as4: c.as4, add_path: c.add_path }
    }
}

fn names(v: &Value) -> Vec<Family> {
    let name = |v: &Value| match v.as_str().unwrap() {
        "l2vpn-evpn" => Family::EVPN,
        "ipv4-unicast" => Family::IPV4,
        "ipv6-unicast" => Family::IPV6,
        "ipv4-rtc" => Family::RTC,
        other => panic!("family {other}"),
    };
    v.as_array().unwrap().iter().map(name).collect()
}

pub fn hex(s: &str) -> Vec<u8> {
    assert!(s.len().is_multiple_of(2), "odd hex {s}");
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

pub fn to_hex(b: &[u8]) -> String {
    b.iter().map(|b| format!("{b:02x}")).collect()
}

/// Every vector of every file.
pub fn vectors() -> &'static [Vector] {
    static ALL: LazyLock<Vec<Vector>> = LazyLock::new(read_vectors);
    &ALL
}

fn read_vectors() -> Vec<Vector> {
    let mut files: Vec<_> = std::fs::read_dir(dir("vectors")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut out = Vec::new();
    for path in files {
        let list: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for json in list {
            let bytes = hex(json["hex"].as_str().unwrap());
            assert_eq!(bytes.len() as u64, json["length"].as_u64().unwrap(), "{}", json["id"]);
            out.push(Vector {
                file: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                id: json["id"].as_str().unwrap().to_owned(),
                bytes,
                json,
            });
        }
    }
    out
}
