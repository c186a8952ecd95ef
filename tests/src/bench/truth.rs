//! Case (l): the truth of ARP and ND, see [`crate::truth`].

use super::{Report, System};
use crate::truth::{Plan, run as run_plan};

/// Told of each kind.
const MOST: usize = 15;

pub(super) fn run(plan: &Plan, report: &mut Report) {
    let us = System::Vtepd;
    let o = run_plan(plan);
    for (name, count) in &o.steps {
        report.number(format!("truth, steps: {name}"), us, "", *count as f64);
    }
    for (what, list) in
        [("wrong", &o.wrong), ("wrong row", &o.wrong_rows), ("dead", &o.dead), ("refused", &o.refused)]
    {
        for words in list.iter().take(MOST) {
            eprintln!("  {what}: {words}");
        }
    }
    report.number("truth: answers heard", us, "", o.frames as f64);
    report.number("truth: wrong answers 50 ms after the change", us, "", o.wrong.len() as f64);
    report.number("truth: rows of kernels read", us, "", o.rows as f64);
    report.number("truth: wrong rows 50 ms after the change", us, "", o.wrong_rows.len() as f64);
    report.number("truth: bindings of dead hosts that stayed", us, "", o.dead.len() as f64);
    report.number("truth: hosts refused their own address", us, "", o.refused.len() as f64);
    report.number("truth: requests for live hosts", us, "", o.asked as f64);
    report.number("truth: of those answered within 5 ms", us, "%", o.in_time());
    report.number("truth: of those late, while a daemon was away", us, "", o.late_beside as f64);
    report.number("truth: of those never answered", us, "", o.unanswered as f64);
    report.times("truth: request to answer", Some(us), &o.took);
    report.times("idle control: a 1 ms sleep is late by, meanwhile", None, &o.control);
}
