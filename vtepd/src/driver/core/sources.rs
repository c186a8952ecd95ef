//! Where the core's inputs come from: signals, kernel, frames, connections, commands, and its helpers' news.

use super::{Core, CoreFault, KERNEL_BUDGET, STOP_LIMIT, Stop};
use crate::driver::clock;
use evpn::fabric::KernelEvent;
use evpn::node::Input;
use std::task::{Context, Poll};

impl Core {
    /// Takes in what is ready, up to a budget from each source.
    pub(super) fn poll_inputs(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CoreFault>> {
        let mut busy = std::mem::take(&mut self.again);
        busy |= self.poll_signals(cx);
        busy |= self.poll_kernel(cx)?;
        busy |= self.poll_frames(cx);
        busy |= self.poll_conns(cx);
        busy |= self.poll_bfd(cx);
        busy |= self.poll_commands(cx);
        busy |= self.poll_underlay(cx);
        busy |= self.poll_guards(cx);
        busy |= self.poll_holds(cx);
        busy |= self.timer.poll(cx).is_ready();
        let awake = busy || self.ended().is_some();
        self.slept = !awake;
        if awake { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_signals(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let away = [&mut self.term, &mut self.int, &mut self.hup].map(|s| (s, false));
        for (signal, for_good) in away.into_iter().chain([(&mut self.quit, true)]) {
            while let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                busy = true;
                if self.stop != Stop::No {
                    self.stop = Stop::Now;
                    continue;
                }
                let at = clock::now();
                tracing::info!(for_good, "stopping");
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                self.stop = Stop::Asked { until: at + STOP_LIMIT };
                self.node.handle(Input::Shutdown { for_good }, at);
            }
        }
        busy
    }

    fn poll_kernel(&mut self, cx: &mut Context<'_>) -> Result<bool, CoreFault> {
        if !self.monitor.is_ready(cx) & !self.thread.is_ready(cx) {
            self.node.set_caught_up(clock::now());
            return Ok(false);
        }
        // Nothing can have waited while we slept; what is read now is judged by what was known before it.
        if std::mem::take(&mut self.slept) {
            self.node.set_caught_up(clock::now());
        }
        let s = &mut self.scratch;
        let more =
            self.plane.drain(KERNEL_BUDGET, &mut s.kernel, &mut s.written).map_err(CoreFault::Kernel)?;
        let at = clock::now();
        self.node.set_behind(more);
        if more {
            self.again = true;
        } else {
            let drained = self.monitor.drained(cx) & self.thread.drained(cx);
            self.again |= !drained;
        }
        if !s.written.is_empty() {
            self.node.handle(Input::Written(std::mem::take(&mut s.written)), at);
        }
        let synced = s.kernel.contains(&KernelEvent::Synced);
        for event in s.kernel.drain(..) {
            self.node.handle(Input::Kernel(event), at);
        }
        if !more {
            self.node.set_caught_up(at);
        }
        if synced {
            self.say_ready();
        }
        Ok(true)
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> bool {
        if self.taps.deadline().is_some_and(|t| t <= clock::now()) {
            self.taps.reopen(clock::now());
        }
        let busy = self.taps.poll(cx, &mut self.scratch.frames);
        self.node.set_unread(self.taps.unread().clone());
        for (port, bytes, at) in self.scratch.frames.drain(..) {
            self.node.handle(Input::Frame { port, bytes }, at);
        }
        busy
    }

    fn poll_conns(&mut self, cx: &mut Context<'_>) -> bool {
        let busy = self.conns.poll(cx, &mut self.scratch.conns);
        self.tell_conns(clock::now());
        busy
    }

    fn poll_bfd(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Some((peer, news)) = self.bfd.poll(cx) {
            busy = true;
            self.node.handle(Input::Bfd { peer, news }, clock::now());
        }
        busy
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let busy = self.requests.poll(cx, &mut self.scratch.inputs);
        let at = clock::now();
        for input in self.scratch.inputs.drain(..) {
            self.node.handle(input, at);
        }
        busy
    }

    fn poll_underlay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some((vtep, mtu))) = self.underlay.mtus.poll_recv(cx) {
            busy = true;
            self.node.handle(Input::PathMtu { vtep, mtu }, clock::now());
        }
        busy
    }

    fn poll_guards(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Some((port, news)) = self.guards.poll(cx) {
            busy = true;
            self.node.handle(Input::Guard { port, news }, clock::now());
        }
        while let Some((port, news)) = self.rules.poll(cx) {
            busy = true;
            self.node.handle(Input::PortRules { port, news }, clock::now());
        }
        busy
    }

    fn poll_holds(&mut self, cx: &mut Context<'_>) -> bool {
        let at = clock::now();
        let mut ended = Vec::new();
        let mut busy = self.holds.poll(cx, &mut ended);
        for (port, mac, held) in ended {
            busy = true;
            self.node.handle(Input::Held { port, mac, held }, at);
        }
        while let Some((vni, made)) = self.plane.made_hold_port() {
            busy = true;
            let made = made.and_then(|port| self.holds.add(vni, port).map_err(|e| e.to_string()));
            self.node.handle(Input::HoldPort { vni, made }, at);
        }
        busy
    }
}
