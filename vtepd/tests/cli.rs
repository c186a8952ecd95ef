//! The command line as a person meets it: help, errors, exit codes. Run as a process.

use std::process::{Command, Output, Stdio};

fn vtepd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vtepd"))
        .args(args)
        .env_remove("NO_COLOR")
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("vtepd starts")
}

/// Exit code and both outputs, as one text.
fn shown(args: &[&str]) -> String {
    let out = vtepd(args);
    let code = out.status.code().expect("an exit code");
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).expect("UTF-8");
    let stdout = text(&out.stdout);
    let stderr = text(&out.stderr);
    format!("exit code {code}\n----- stdout\n{stdout}----- stderr\n{stderr}")
}

macro_rules! snapshots {
    ($($name:ident => $args:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(shown(&$args));
        }
    )*};
}

snapshots! {
    help => ["--help"];
    help_of_run => ["run", "--help"];
    help_of_check => ["check", "--help"];
    help_of_show => ["show", "--help"];
    help_of_why => ["why", "mac", "--help"];
    a_why_with_a_wrong_address_is_a_usage_error => ["why", "ip", "100", "10.0.0.256"];
    a_why_with_a_wrong_vni_is_a_usage_error => ["why", "mac", "0", "02:00:00:00:00:01"];
    why_without_a_daemon_says_what_to_do => ["why", "mac", "100", "02:00:00:00:00:01", "--socket", "/nonexistent/vtepd.sock"];
    help_of_watch => ["watch", "--help"];
    help_of_hook_libvirt => ["hook", "libvirt", "--help"];
    help_of_move => ["move", "--help"];
    help_of_move_prepare => ["move", "prepare", "--help"];
    help_of_move_activate => ["move", "activate", "--help"];
    help_of_move_abort => ["move", "abort", "--help"];
    help_of_move_release => ["move", "release", "--help"];
    a_move_without_a_step_prints_the_help => ["move"];
    a_prepared_move_needs_a_port => ["move", "prepare", "--mac", "52:54:00:00:00:01"];
    a_move_needs_a_mac => ["move", "abort"];
    a_timeout_needs_a_unit => ["move", "release", "--mac", "52:54:00:00:00:01", "--timeout", "30"];
    an_abort_takes_no_port => ["move", "abort", "--mac", "52:54:00:00:00:01", "--port", "p1"];
    a_move_without_a_daemon_says_what_to_do =>
        ["move", "abort", "--mac", "52:54:00:00:00:01", "--socket", "/nonexistent/vtepd.sock"];
    no_arguments_print_the_help => [];
    a_misspelt_command_is_corrected => ["shwo", "macs"];
    a_misspelt_table_is_corrected => ["show", "mac"];
    check_needs_a_file_or_the_host => ["check"];
    run_needs_a_file => ["run"];
    a_vni_out_of_range_is_a_usage_error => ["show", "macs", "--vni", "16777216"];
    a_wrong_mac_is_a_usage_error => ["show", "macs", "--mac", "52:54"];
    a_filter_of_moves_on_another_table_is_a_usage_error => ["show", "macs", "--slow", "5ms"];
    a_place_on_another_table_is_a_usage_error => ["show", "routes", "--port", "p1"];
    a_kind_of_move_that_is_none_is_a_usage_error => ["show", "moves", "--kind", "quick"];
    show_without_a_daemon_says_what_to_do => ["show", "macs", "--socket", "/nonexistent/vtepd.sock"];
    watch_without_a_daemon_says_what_to_do => ["watch", "--socket", "/nonexistent/vtepd.sock"];
    check_of_a_missing_file => ["check", "--config", "/nonexistent/vtepd.toml"];
}

fn config(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("vtepd.toml");
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

#[test]
fn check_says_that_a_valid_file_is_valid() {
    let (_dir, path) = config("[vtep]\naddress = \"10.255.0.1\"\nasn = 65000\n");
    let out = vtepd(&["check", "--config", &path]);
    assert_eq!(out.status.code(), Some(0));
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(text, format!("`{path}` is valid: 0 neighbors, 0 VNIs\n"));
}

#[test]
fn check_and_run_list_every_error_and_exit_with_2() {
    let (_dir, path) = config("[vtep]\naddress = \"10.255.0.1\"\nasn = 0\ncolour = 1\n[[vni]]\nvni = 0\n");
    for command in ["check", "run"] {
        let out = vtepd(&[command, "--config", &path]);
        assert_eq!(out.status.code(), Some(2), "{command}");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(text.contains("3 errors"), "{command}: {text}");
        for place in [":3:7", ":4:1", ":6:7"] {
            assert!(text.contains(&format!("{path}{place}")), "{command}: {place} in {text}");
        }
        assert!(!text.contains('\x1b'), "colour without a terminal: {text}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vtepd"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vtepd starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!text.contains("panicked"), "{text}");
}
