//! What a node says when it is asked.

use super::{BRIDGE, World};
use evpn::fabric::{Row, RowKey};
use evpn::node::{About, Command, Input, MacFilter, Query, Reply, Show, WhyRequest, view};
use evpn::types::{Mac, Vni};
use std::net::IpAddr;

impl World {
    pub fn ask(&mut self, i: usize, show: Show) -> view::Rows {
        let q = Query { show, filter: MacFilter::default(), cursor: None, limit: 256 };
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command: Command::Show(q) });
        match self.hosts[i].replies.pop() {
            Some(Reply::Page(p)) => p.rows,
            other => panic!("no page but {other:?}"),
        }
    }

    pub fn why(&mut self, i: usize, vni: Vni, about: About) -> Result<view::WhyView, String> {
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command: Command::Why(WhyRequest { vni, about }) });
        match self.hosts[i].replies.pop() {
            Some(Reply::Why(v)) => Ok(*v),
            Some(Reply::Error(e)) => Err(e),
            other => panic!("no answer but {other:?}"),
        }
    }

    /// Complete reads asked for since the start.
    pub fn recalls(&self, i: usize) -> u64 {
        self.hosts[i].recalls
    }

    pub fn duplicates(&mut self, i: usize) -> Vec<view::DuplicateView> {
        match self.ask(i, Show::Duplicates) {
            view::Rows::Duplicates(v) => v,
            other => panic!("{other:?}"),
        }
    }

    /// A command and its answer.
    pub fn command(&mut self, i: usize, command: Command) -> Reply {
        self.hosts[i].replies.clear();
        self.input(i, Input::Command { id: 1, command });
        self.hosts[i].replies.pop().expect("an answer")
    }

    pub fn status(&mut self, i: usize) -> view::StatusView {
        match self.ask(i, Show::Status) {
            view::Rows::Status(mut v) => v.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub fn macs(&mut self, i: usize) -> Vec<view::MacView> {
        match self.ask(i, Show::Macs) {
            view::Rows::Macs(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn vnis(&mut self, i: usize) -> Vec<view::VniView> {
        match self.ask(i, Show::Vnis) {
            view::Rows::Vnis(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn moves(&mut self, i: usize) -> Vec<view::MoveView> {
        match self.ask(i, Show::Moves) {
            view::Rows::Moves(v) => v,
            other => panic!("{other:?}"),
        }
    }

    pub fn mac_row(&self, i: usize, mac: Mac) -> Option<Row> {
        self.hosts[i].rows.get(&RowKey::Mac { bridge: BRIDGE, mac }).copied()
    }

    pub fn neigh_row(&self, i: usize, ip: IpAddr) -> Option<Row> {
        self.hosts[i].rows.get(&RowKey::Neigh { dev: BRIDGE, ip }).copied()
    }
}
