//! From the text of a file to a [`Topology`].

use super::yaml::{self, Complaints, entries, list, mapping, scalar, words};
use super::{
    DEFAULT_MTU, Endpoint, Faults, Kind, LABEL_AT, LABEL_ROLE, Link, Node, Pos, Socket, Topology, Vm,
};
use crate::mounts::Bind;
use marked_yaml::types::{MarkedMappingNode, Node as Yaml};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Keys of a node that have no meaning without containers.
const IGNORED: &[&str] =
    &["image", "image-pull-policy", "mgmt-ipv4", "mgmt-ipv6", "memory", "cpu", "restart-policy", "position"];
/// Keys of a node that mean something to containerlab, and would be missed here.
const UNSUPPORTED: &[&str] = &[
    "aliases",
    "auto-remove",
    "cap-add",
    "certificate",
    "components",
    "config",
    "cpu-set",
    "credentials",
    "devices",
    "dns",
    "enforce-startup-config",
    "entrypoint",
    "env-files",
    "extras",
    "healthcheck",
    "install",
    "license",
    "network-mode",
    "ports",
    "privileged",
    "publish",
    "runtime",
    "sandbox",
    "shm-size",
    "stages",
    "startup-config",
    "startup-delay",
    "suppress-startup-config",
    "tmpfs",
    "type",
    "user",
];
const SUPPORTED: &str = "kind, group, cmd, exec, binds, env, sysctls, labels";

/// What defaults, kinds, groups and nodes can say.
#[derive(Clone, Default)]
struct Properties {
    kind: Option<(String, Pos)>,
    group: Option<(String, Pos)>,
    image: Option<String>,
    cmd: Option<(String, Pos)>,
    exec: Vec<(String, Pos)>,
    binds: Vec<(String, Pos)>,
    env: BTreeMap<String, (String, Pos)>,
    sysctls: BTreeMap<String, (String, Pos)>,
    labels: BTreeMap<String, (String, Pos)>,
}

impl Properties {
    fn read(y: &Yaml, whose: &str, c: &mut Complaints) -> Self {
        let mut p = Self::default();
        let Some(m) = mapping(y, whose, c) else { return p };
        for (key, at, value) in entries(m) {
            let one =
                |c: &mut Complaints| scalar(value, &format!("`{key}`"), c).map(|s| s.as_str().to_owned());
            match key {
                "kind" => p.kind = one(c).map(|s| (s, at)),
                "group" => p.group = one(c).map(|s| (s, at)),
                "image" => p.image = one(c),
                "cmd" => p.cmd = one(c).map(|s| (s, at)),
                "exec" => p.exec = list(value, "`exec`", c),
                "binds" => p.binds = list(value, "`binds`", c),
                "env" => p.env = words(value, "`env`", c),
                "sysctls" => p.sysctls = words(value, "`sysctls`", c),
                "labels" => p.labels = words(value, "`labels`", c),
                _ if IGNORED.contains(&key) => {}
                _ if UNSUPPORTED.contains(&key) => c.add(
                    at,
                    format!("`{key}` is not supported in network namespaces; remove it or use containerlab"),
                ),
                _ => c.add(at, format!("unknown key `{key}` in {whose}; known here: {SUPPORTED}")),
            }
        }
        p
    }

    /// What is said closer to the node wins; lists are joined, maps merged (as containerlab does).
    fn over(self, base: &Self) -> Self {
        let maps = |base: &BTreeMap<_, _>, own: BTreeMap<_, _>| {
            let mut m = base.clone();
            m.extend(own);
            m
        };
        Self {
            kind: self.kind.or_else(|| base.kind.clone()),
            group: self.group.or_else(|| base.group.clone()),
            image: self.image.or_else(|| base.image.clone()),
            cmd: self.cmd.or_else(|| base.cmd.clone()),
            exec: [&base.exec[..], &self.exec[..]].concat(),
            binds: [&base.binds[..], &self.binds[..]].concat(),
            env: maps(&base.env, self.env),
            sysctls: maps(&base.sysctls, self.sysctls),
            labels: maps(&base.labels, self.labels),
        }
    }
}

/// Reads a topology; all faults at once.
pub fn parse(path: &Path, text: &str) -> Result<Topology, Faults> {
    let fail = |faults| Faults { path: path.to_owned(), faults };
    let top = yaml::load(text).map_err(|f| fail(vec![f]))?;
    let mut c = Complaints::default();
    let topology = Reader { path, c: &mut c }.topology(&top);
    if c.0.is_empty() {
        return Ok(topology);
    }
    c.0.sort_by_key(|f| f.at);
    Err(fail(c.0))
}

struct Reader<'a> {
    path: &'a Path,
    c: &'a mut Complaints,
}

impl Reader<'_> {
    fn topology(&mut self, top: &MarkedMappingNode) -> Topology {
        let mut t = Topology {
            name: String::new(),
            path: self.path.to_owned(),
            nodes: Vec::new(),
            links: Vec::new(),
            vms: BTreeMap::new(),
            switchboard: None,
        };
        let mut body = None;
        for (key, at, value) in entries(top) {
            match key {
                "name" => {
                    if let Some(s) = scalar(value, "`name`", self.c) {
                        if !is_name(s.as_str()) {
                            self.c.add(yaml::pos(s.span()), "`name`: use letters, digits, `-` and `_` only");
                        }
                        s.as_str().clone_into(&mut t.name);
                    }
                }
                "topology" => body = mapping(value, "`topology`", self.c),
                // Both only shape containers: their names and their management network.
                "prefix" | "mgmt" => {}
                "settings" | "debug" => {
                    self.c.add(at, format!("`{key}` is not supported in network namespaces"));
                }
                _ => self.c.add(at, format!("unknown key `{key}`; known here: name, topology, mgmt, prefix")),
            }
        }
        if t.name.is_empty() && self.c.0.is_empty() {
            self.c.add(Pos { line: 1, column: 1 }, "`name` is missing");
        }
        let Some(body) = body else {
            self.c.add(Pos { line: 1, column: 1 }, "`topology` is missing or empty");
            return t;
        };
        self.body(body, &mut t);
        t
    }

    fn body(&mut self, body: &MarkedMappingNode, t: &mut Topology) {
        let mut defaults = Properties::default();
        let mut kinds = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for (key, at, value) in entries(body) {
            match key {
                "defaults" => defaults = Properties::read(value, "`defaults`", self.c),
                "kinds" => kinds = self.named(value, "kinds"),
                "groups" => groups = self.named(value, "groups"),
                "nodes" | "links" => {}
                _ => self.c.add(
                    at,
                    format!(
                        "unknown key `{key}` in `topology`; known here: defaults, kinds, groups, nodes, links"
                    ),
                ),
            }
        }
        if let Some(nodes) = body.get_node("nodes").and_then(|n| mapping(n, "`nodes`", self.c)) {
            for (name, at, value) in entries(nodes) {
                if let Some(node) = self.node(name, at, value, &defaults, &kinds, &groups) {
                    t.nodes.push(node);
                }
            }
        } else {
            self.c.add(yaml::pos(body.span()), "`nodes` is missing");
        }
        if let Some(links) = body.get_node("links") {
            match links.as_sequence() {
                Some(links) => t.links = links.iter().filter_map(|l| self.link(l, &t.nodes)).collect(),
                None => self.c.add(yaml::pos(links.span()), "`links` must be a list"),
            }
        }
        self.ends_are_used_once(t);
        self.wiring(t);
    }

    fn named(&mut self, y: &Yaml, what: &str) -> BTreeMap<String, Properties> {
        let Some(m) = mapping(y, &format!("`{what}`"), self.c) else { return BTreeMap::new() };
        entries(m)
            .map(|(k, _, v)| (k.to_owned(), Properties::read(v, &format!("`{what}.{k}`"), self.c)))
            .collect()
    }

    fn node(
        &mut self,
        name: &str,
        at: Pos,
        y: &Yaml,
        defaults: &Properties,
        kinds: &BTreeMap<String, Properties>,
        groups: &BTreeMap<String, Properties>,
    ) -> Option<Node> {
        if !is_name(name) {
            self.c.add(at, format!("node name `{name}`: use letters, digits, `-` and `_` only"));
            return None;
        }
        let own = Properties::read(y, &format!("node `{name}`"), self.c);
        let group = own.group.clone().or_else(|| defaults.group.clone());
        let group = group.and_then(|(g, at)| {
            let found = groups.get(&g);
            if found.is_none() {
                self.c.add(at, format!("group `{g}` is not defined under `groups`"));
            }
            found.cloned()
        });
        let group = group.unwrap_or_default();
        let kind = own.kind.clone().or_else(|| group.kind.clone()).or_else(|| defaults.kind.clone());
        let Some((kind_name, kind_at)) = kind else {
            self.c.add(at, format!("node `{name}` has no `kind`; use `linux` or `bridge`"));
            return None;
        };
        let by_kind = kinds.get(&kind_name).cloned().unwrap_or_default();
        let all = own.over(&group.over(&by_kind.over(defaults)));
        let kind = match kind_name.as_str() {
            "linux" => Kind::Linux,
            "bridge" if name.len() <= 15 => Kind::Bridge,
            "bridge" => {
                self.c.add(
                    at,
                    format!("bridge `{name}`: its name is the device's too, so 15 characters at most"),
                );
                return None;
            }
            other => {
                self.c.add(
                    kind_at,
                    format!("kind `{other}` of node `{name}` needs containers; namespaces can be `linux` or `bridge`"),
                );
                return None;
            }
        };
        let exec = all.exec.iter().filter_map(|(line, at)| self.command(line, *at)).collect();
        let cmd = all.cmd.as_ref().and_then(|(line, at)| self.command(line, *at));
        let binds = all.binds.iter().filter_map(|(text, at)| self.bind(text, *at)).collect();
        for (key, (_, at)) in &all.sysctls {
            if !key.starts_with("net.") {
                self.c.add(*at, format!("sysctl `{key}` is not one of a network namespace (`net.…`)"));
            }
        }
        let plain = |m: BTreeMap<String, (String, Pos)>| m.into_iter().map(|(k, (v, _))| (k, v)).collect();
        Some(Node {
            name: name.to_owned(),
            kind,
            image: all.image,
            cmd,
            exec,
            binds,
            env: plain(all.env),
            sysctls: plain(all.sysctls),
            labels: plain(all.labels),
            at,
        })
    }

    fn command(&mut self, line: &str, at: Pos) -> Option<Vec<String>> {
        match split_words(line) {
            Err(what) => {
                self.c.add(at, format!("{what} in `{line}`"));
                None
            }
            Ok(words) if words.is_empty() => {
                self.c.add(at, "an empty command");
                None
            }
            Ok(words) if words.last().is_some_and(|w| w == "&") => {
                self.c.add(at, "no shell runs this, so `&` has no meaning; use `cmd` for what keeps running");
                None
            }
            Ok(words) => Some(words),
        }
    }

    fn bind(&mut self, text: &str, at: Pos) -> Option<Bind> {
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            self.c.add(at, format!("bind `{text}`: write `source:target` or `source:target:ro`"));
            return None;
        };
        let read_only = match parts.next() {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(other) => {
                self.c.add(at, format!("bind option `{other}` is not supported; known here: ro, rw"));
                return None;
            }
        };
        if !target.starts_with('/') {
            self.c.add(at, format!("bind target `{target}` must be an absolute path"));
            return None;
        }
        let base = self.path.parent().unwrap_or(Path::new(""));
        let joined = base.join(source);
        let source = std::path::absolute(&joined).unwrap_or(joined);
        if !source.exists() {
            self.c.add(at, format!("bind source {} does not exist", source.display()));
            return None;
        }
        Some(Bind { source, target: PathBuf::from(target), read_only })
    }

    fn link(&mut self, y: &Yaml, nodes: &[Node]) -> Option<Link> {
        let m = mapping(y, "a link", self.c)?;
        // The first key, not the value after it where the parser lets a mapping begin.
        let at = entries(m).next().map_or_else(|| yaml::pos(y.span()), |(_, at, _)| at);
        let mut ends = Vec::new();
        let mut mtu = DEFAULT_MTU;
        for (key, at, value) in entries(m) {
            match key {
                "endpoints" => {
                    ends = list(value, "`endpoints` (short form `[\"a:eth1\", \"b:eth1\"]`)", self.c);
                }
                "mtu" => {
                    let text = scalar(value, "`mtu`", self.c)?.as_str();
                    match text.parse() {
                        Ok(n @ 68..=65535) => mtu = n,
                        _ => self.c.add(at, format!("mtu `{text}` is not a number from 68 to 65535")),
                    }
                }
                "labels" => {}
                "type" => {
                    self.c.add(at, "links are written in the short form, without `type`");
                    return None;
                }
                _ => self
                    .c
                    .add(at, format!("unknown key `{key}` in a link; known here: endpoints, mtu, labels")),
            }
        }
        let [(a, a_at), (b, b_at)] = &ends[..] else {
            self.c.add(at, format!("a link has two endpoints, this has {}", ends.len()));
            return None;
        };
        let a = self.endpoint(a, *a_at, nodes);
        let b = self.endpoint(b, *b_at, nodes);
        Some(Link { a: a?, b: b?, mtu, at })
    }

    fn endpoint(&mut self, text: &str, at: Pos, nodes: &[Node]) -> Option<Endpoint> {
        let Some((node, interface)) = text.split_once(':') else {
            self.c.add(at, format!("endpoint `{text}`: write `node:interface`"));
            return None;
        };
        if matches!(node, "host" | "mgmt-net" | "macvlan" | "dummy") && !nodes.iter().any(|n| n.name == node)
        {
            self.c.add(
                at,
                format!("endpoint `{text}`: links to `{node}` are not supported in network namespaces"),
            );
            return None;
        }
        let Some(found) = nodes.iter().find(|n| n.name == node) else {
            self.c.add(at, format!("endpoint `{text}`: there is no node `{node}`"));
            return None;
        };
        let fits = !interface.is_empty()
            && interface.len() <= 15
            && !matches!(interface, "." | ".." | "lo")
            && interface.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if !fits {
            self.c.add(
                at,
                format!("interface `{interface}`: 1 to 15 characters, without `/` and `:`, and not `lo`"),
            );
            return None;
        }
        if found.kind == Kind::Linux && interface == "eth0" {
            self.c.add(at, "`eth0` is containerlab's management interface; links begin at `eth1`");
            return None;
        }
        Some(Endpoint { node: node.to_owned(), interface: interface.to_owned() })
    }

    fn ends_are_used_once(&mut self, t: &Topology) {
        let mut seen = BTreeSet::new();
        for l in &t.links {
            for e in [&l.a, &l.b] {
                if !seen.insert(e) {
                    self.c.add(l.at, format!("`{e}` is used by two links"));
                }
            }
        }
    }

    /// VMs, their plugs and sockets.
    fn wiring(&mut self, t: &mut Topology) {
        for n in &t.nodes {
            match n.labels.get(LABEL_ROLE).map(String::as_str) {
                None => {}
                Some("switchboard") if t.switchboard.is_none() => t.switchboard = Some(n.name.clone()),
                Some("switchboard") => self.c.add(n.at, "there is a switchboard already; one serves all VMs"),
                Some(other) => {
                    self.c.add(n.at, format!("`{LABEL_ROLE}: {other}`: the only role is `switchboard`"));
                }
            }
        }
        for n in &t.nodes {
            let Some(home) = n.labels.get(LABEL_AT) else { continue };
            let Some(board) = t.switchboard.as_deref() else {
                self.c.add(n.at, format!("VM `{}` needs a node with `{LABEL_ROLE}: switchboard`", n.name));
                continue;
            };
            let ends: Vec<_> = t.ends(&n.name).collect();
            let [(interface, far, _)] = ends[..] else {
                self.c
                    .add(n.at, format!("VM `{}` has {} links; it has one, to `{board}`", n.name, ends.len()));
                continue;
            };
            if far.node != board {
                self.c
                    .add(n.at, format!("VM `{}` is linked to `{}`; link it to `{board}`", n.name, far.node));
                continue;
            }
            let prefix = format!("{}-", far.interface);
            let sockets: Vec<_> = t
                .ends(board)
                .filter(|(socket, ..)| socket.starts_with(&prefix))
                .map(|(socket, port, _)| Socket { socket: socket.to_owned(), port: port.clone() })
                .collect();
            if !sockets.iter().any(|s| s.port.node == *home) {
                self.c.add(
                    n.at,
                    format!(
                        "VM `{}` starts at `{home}`, but no link joins `{board}:{prefix}…` with it",
                        n.name
                    ),
                );
                continue;
            }
            let vm = Vm {
                interface: interface.to_owned(),
                plug: far.interface.clone(),
                sockets,
                home: home.clone(),
            };
            t.vms.insert(n.name.clone(), vm);
        }
    }
}

fn is_name(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= 40
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !s.starts_with('-')
}

/// Splits a command line into words as a shell would, with quotes and backslashes but without anything else of one.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(ch) = chars.next() {
        match (quote, ch) {
            (Some(q), _) if ch == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(ch);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push(chars.next().ok_or("a backslash at the end")?);
            }
            (None, _) if ch.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(ch),
        }
    }
    if quote.is_some() {
        return Err("a quote without its end");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests;
