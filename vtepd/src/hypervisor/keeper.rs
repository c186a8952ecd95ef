//! Carries wishes to the core, each MAC's in their order, without ever waiting in between.
//!
//! *Taking back* depends on who has the MAC, which only the core knows:
//!
//! | who has it | its migration was completed | it was not |
//! |---|---|---|
//! | another VTEP | the guest runs there too: a split brain, told and no claim | the target was activated and the migration failed: *activate* here, with the next sequence (PIT-26) |
//! | this one | released: *abort* ends that | released: *activate*; else nothing |
//! | nobody | *activate* | *activate* |

use super::step::{Outcome, Step, Wish};
use crate::api::core::{Core, CoreError};
use evpn::node::view::{Place, Rows};
use evpn::node::{Command, MacFilter, MoveRequest, MoveStep, Query, Reply, Requester, Show};
use evpn::types::{Mac, Span};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long a preparation made by an adapter stands; it is repeated before that.
const PREPARED_FOR: Span = Span::secs(600);
/// How long the row of an activated guest is held although the guest says nothing: QEMU has said that it runs.
const HELD_FOR: Span = Span::secs(3600);
/// A busy core is asked again after this time.
const AGAIN: Duration = Duration::from_millis(10);
/// Wishes of one guest that wait for a busy core; older ones are dropped, which is told as a refusal.
const QUEUE: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    core: Core,
    by: Requester,
    /// The core was busy.
    waiting: VecDeque<Wish>,
    asked: JoinSet<(Wish, Outcome)>,
}

impl Keeper {
    pub(super) fn new(core: Core, by: Requester) -> Self {
        Self { core, by, waiting: VecDeque::new(), asked: JoinSet::new() }
    }

    /// Asks at once if the core takes it.
    pub(super) fn wish(&mut self, wish: Wish) {
        self.waiting.push_back(wish);
        while self.waiting.len() > QUEUE {
            if let Some(w) = self.waiting.pop_front() {
                self.asked.spawn(async { (w, Outcome::Refused("vtepd is too busy".into())) });
            }
        }
        self.push();
    }

    /// Hands over what waits, as far as the core takes it.
    fn push(&mut self) {
        while let Some(wish) = self.waiting.front() {
            if let Step::TakeBack { port, left, released } = &wish.step {
                let (port, left, released) = (port.clone(), *left, *released);
                let (core, by, wish) = (self.core.clone(), self.by, wish.clone());
                self.waiting.pop_front();
                self.asked.spawn(async move {
                    let outcome = take_back(&core, by, wish.mac, port, left, released).await;
                    (wish, outcome)
                });
                continue;
            }
            match self.core.send(Command::Move(request(self.by, wish.mac, &wish.step))) {
                Ok(answer) => {
                    if let Some(wish) = self.waiting.pop_front() {
                        self.asked.spawn(async move { (wish, outcome(answer).await) });
                    }
                }
                Err(CoreError::Busy) => return,
                Err(e @ (CoreError::Stopped | CoreError::Late)) => {
                    if let Some(wish) = self.waiting.pop_front() {
                        self.asked.spawn(async move { (wish, Outcome::Refused(e.to_string())) });
                    }
                }
            }
        }
    }

    /// The next wish that has ended; pending for ever when there is none. May be dropped at any time.
    pub(super) async fn ended(&mut self) -> (Wish, Outcome) {
        loop {
            self.push();
            if self.waiting.is_empty() {
                match self.asked.join_next().await {
                    Some(Ok(done)) => return done,
                    Some(Err(_)) => {}
                    None => std::future::pending().await,
                }
            } else {
                tokio::select! {
                    Some(Ok(done)) = self.asked.join_next() => return done,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        }
    }

    /// Whether everything has ended.
    pub(super) fn idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }
}

fn request(by: Requester, mac: Mac, step: &Step) -> MoveRequest {
    let at_stop = matches!(step, Step::Prepare { at_stop: true, .. } | Step::Release { at_stop: true });
    let step = match step {
        Step::Prepare { port, .. } => MoveStep::Prepare { port: port.clone(), timeout: Some(PREPARED_FOR) },
        Step::Activate { port } | Step::TakeBack { port, .. } => {
            MoveStep::Activate { port: Some(port.clone()), timeout: Some(HELD_FOR) }
        }
        Step::Abort => MoveStep::Abort,
        Step::Release { .. } => MoveStep::Release { timeout: None },
        Step::Leave(leave) => MoveStep::Leave(*leave),
    };
    MoveRequest { vni: None, mac, ips: Vec::new(), step, by, at_stop }
}

async fn outcome(answer: oneshot::Receiver<Reply>) -> Outcome {
    match Core::answer(answer).await {
        Ok(Reply::Move(m)) => Outcome::Done(m.state),
        Ok(Reply::Error(why) | Reply::MoveRefused { text: why, .. }) => Outcome::Refused(why),
        Ok(
            Reply::Page(_)
            | Reply::Events { .. }
            | Reply::Why(_)
            | Reply::Neighbor(_)
            | Reply::NeighborRefused { .. }
            | Reply::Told
            | Reply::Cleared(_),
        ) => Outcome::Refused("unexpected answer".into()),
        Err(e) => Outcome::Refused(e.to_string()),
    }
}

async fn take_back(
    core: &Core,
    by: Requester,
    mac: Mac,
    port: String,
    left: bool,
    released: bool,
) -> Outcome {
    let here = match owner(core, mac).await {
        Err(why) => return Outcome::Refused(why),
        Ok(Owner::Vtep(vtep)) if left => return Outcome::Elsewhere(vtep),
        Ok(Owner::Here) => true,
        Ok(Owner::Vtep(_) | Owner::Nobody) => false,
    };
    if here && !released {
        return Outcome::NotNeeded;
    }
    // One that was never elsewhere is not advertised anew, unless it was released before its migration was over: a
    // target that was told so may have activated it, and its route be under way. That must not win (PIT-26).
    let step = if here && left { Step::Abort } else { Step::Activate { port } };
    let request = request(by, mac, &step);
    for _ in 0..200 {
        match core.send(Command::Move(request.clone())) {
            Ok(answer) => return outcome(answer).await,
            Err(CoreError::Busy) => tokio::time::sleep(AGAIN).await,
            Err(e @ (CoreError::Stopped | CoreError::Late)) => return Outcome::Refused(e.to_string()),
        }
    }
    Outcome::Refused(CoreError::Busy.to_string())
}

/// Who has a MAC. Where several VNIs know it, the first in this order counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Owner {
    Here,
    Vtep(IpAddr),
    Nobody,
}

async fn owner(core: &Core, mac: Mac) -> Result<Owner, String> {
    let filter = MacFilter { mac: Some(mac), ..MacFilter::default() };
    let query = Query { show: Show::Macs, filter, cursor: None, limit: 16 };
    match core.ask(Command::Show(query)).await {
        Ok(Reply::Page(page)) => match page.rows {
            Rows::Macs(rows) => Ok(rows.iter().map(|r| of_place(&r.place)).min().unwrap_or(Owner::Nobody)),
            Rows::Neighbors(_)
            | Rows::Vnis(_)
            | Rows::Hosts(_)
            | Rows::Routes(_)
            | Rows::Moves(_)
            | Rows::Duplicates(_)
            | Rows::Kernel(_)
            | Rows::Status(_) => Err("unexpected answer".into()),
        },
        Ok(Reply::Error(why) | Reply::MoveRefused { text: why, .. }) => Err(why),
        Ok(
            Reply::Events { .. }
            | Reply::Move(_)
            | Reply::Why(_)
            | Reply::Neighbor(_)
            | Reply::NeighborRefused { .. }
            | Reply::Told
            | Reply::Cleared(_),
        ) => Err("unexpected answer".into()),
        Err(e) => Err(e.to_string()),
    }
}

fn of_place(place: &Place) -> Owner {
    match place {
        Place::Port(_) => Owner::Here,
        Place::Vtep(v) => Owner::Vtep(*v),
        Place::None => Owner::Nobody,
    }
}
