import Foundation
import Support
import Testing

/// A family's network over hosts: everybody in it, nobody else, and nobody as somebody else.
@Suite("Networks of families", .serialized, .ownLab(hosts: 4))
struct NetworkTests {
  private let host: TestHost

  init() throws {
    host = try #require(TestHost.here)
    try host.device()
  }

  /// Starts what says "serving", "watching" or the like, and goes on in the guest.
  private func begin(_ vm: String, _ command: String, says word: String) throws {
    let file = "/tmp/" + word
    try host.inside(vm, "sh", "-c", "rm -f \(file); \(command) </dev/null >\(file) 2>&1 &")
    #expect(try eventually { try host.inside(vm, "cat", file).contains(word) }, "\(vm): \(command)")
  }

  private func answers(_ vm: String, _ arguments: String...) throws -> String {
    let outcome = try host.start(["exec", vm, "--", "sf-net"] + arguments).wait()
    return outcome.status == 0 ? outcome.text.trimmingCharacters(in: .newlines) : "no answer"
  }

  @Test("Parent and clones on four hosts reach each other by address and by name")
  func everybody() throws {
    try host.withFork(clones: 4) { fork in
      #expect(Set(fork.clones.map(\.host)) == ["h1", "h2", "h3", "h4"])
      let vms = try host.vms()
      #expect(Set(vms.map(\.ip)).count == 5 && Set(vms.map(\.mac)).count == 5)
      for vm in vms {
        let own = try host.inside(vm.name, "sh", "-c", "ip address show eth0; hostname -i")
        #expect(own.contains("inet \(vm.ip)/16 ") && own.contains("link/ether \(vm.mac) "), "\(own)")
        for other in vms where other.name != vm.name {
          for target in [other.name, other.ip] {
            let outcome = try host.sfctl("exec", vm.name, "--", "ping", "-c", "1", "-W", "5", target)
            #expect(outcome.status == 0, "\(vm.name) → \(target): \(outcome.text)")
          }
        }
      }
    }
  }

  @Test("A name that came and went elsewhere is found where it is now")
  func moves() throws {
    for name in ["h2", "h3", "h1", "h4"] {
      let fork: ForkDocument = try host.document("fork", "dev", "-n", "1", "--host", name)
      let outcome = try host.sfctl("exec", "dev", "--", "ping", "-c", "3", "-W", "2", "dev.1")
      #expect(outcome.status == 0 && outcome.text.contains(" 0% packet loss"), "\(name): \(outcome.text)")
      _ = try host.sfctl("kill", fork.ticket)
      _ = try host.sfctl("join", fork.ticket)
    }
  }

  @Test("Clones of clones, made on another host, have addresses that nobody else has, and names")
  func generations() throws {
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "2", "--host", "h2")
    defer {
      _ = try? host.sfctl("kill", fork.ticket)
      _ = try? host.sfctl("join", fork.ticket)
    }
    for parent in ["dev.1", "dev.2"] {
      #expect(try host.on("h2", "fork", parent, "-n", "2").status == 0)
    }
    let vms = try host.vms()
    #expect(vms.count == 7 && Set(vms.map(\.ip)).count == 7, "\(vms.map(\.ip))")
    for (from, to) in [
      ("dev.1.1", "dev.1.2"), ("dev.1", "dev.1.2"), ("dev.2.1", "dev"), ("dev.2.2", "dev.1"),
    ] {
      #expect(
        try host.sfctl("exec", from, "--", "ping", "-c", "1", "-W", "5", to).status == 0, "\(from) \(to)")
    }
    for name in ["dev.1.1", "dev.1.2", "dev.2.1", "dev.2.2"] {
      #expect(try host.on("h2", "kill", name).status == 0)
    }
    for ticket in try tickets(on: "h2") { _ = try host.on("h2", "join", ticket) }
  }

  private func tickets(on name: String) throws -> [String] {
    struct List: Decodable {
      struct Ticket: Decodable { var ticket: String }
      var tickets: [Ticket]
    }
    let output = try host.on(name, "ticket", "ls", "--json").output
    return try JSONDecoder().decode(List.self, from: output).tickets.map(\.ticket)
  }

  @Test(
    "Two families with the same addresses do not hear each other, nor does a host hear them or they a host")
  func apart() throws {
    try host.device("twin")
    defer {
      _ = try? host.sfctl("vm", "destroy", "twin")
      _ = try? host.inside("dev", "killall", "sf-net")
    }
    try host.withFork(clones: 2) { _ in
      try host.withFork(of: "twin", clones: 4) { _ in
        for (vm, who) in [("dev", "dev"), ("dev.2", "dev.2"), ("twin", "twin"), ("twin.4", "twin.4")] {
          try begin(vm, "sf-net serve 4000", says: "serving")
          try host.inside(vm, "sh", "-c", "echo \(who) >/tmp/who")
        }
        let vms = Dictionary(uniqueKeysWithValues: try host.vms().map { ($0.name, $0) })
        #expect(vms["dev"]?.ip == vms["twin"]?.ip && vms["dev.1"]?.mac == vms["twin.1"]?.mac)
        // dev.4 there is none; who has its address is twin.4.
        let ip = try #require(vms["twin.4"]?.ip)
        #expect(try answers("twin.1", "tcp", ip, "4000", "hear") == "hear")
        #expect(try answers("dev.1", "tcp", ip, "4000", "hear") == "no answer")
        #expect(try answers("dev", "udp", ip, "4000", "hear") == "no answer")
        // The hosts' own services: what a daemon listens on, by any address of its.
        for target in ["h1", "h2"] {
          let parts = try #require(try host.hostAddress(target)).split(separator: ":").map(String.init)
          #expect(try answers("dev.1", "tcp", parts[0], parts[1], "hear") == "no answer")
        }
        for name in ["h1", "h2"] {
          let ping = try host.command(on: name, ["ping", "-c", "1", "-W", "1", try #require(vms["dev"]?.ip)])
            .wait()
          #expect(ping.status != 0, "\(ping.text)")
        }
      }
    }
  }

  @Test("Frames that are not its own to send do not leave a clone: MAC, IP, ARP, DHCP, IPv6, VLAN")
  func spoofing() throws {
    try host.withFork(clones: 3) { fork in
      let vms = Dictionary(uniqueKeysWithValues: try host.vms().map { ($0.name, $0) })
      let own = try #require(vms["dev.1"]), other = try #require(vms["dev.3"])
      // dev.1 is on h1 as the parent is, dev.2 on another host.
      for vm in ["dev", "dev.2"] { try begin(vm, "sf-net watch 600", says: "watching") }
      try host.inside("dev.1", "sf-net", "spoof", own.mac, own.ip, other.mac, other.ip)
      for vm in ["dev", "dev.2"] {
        let heard = {
          Set(try host.inside(vm, "cat", "/tmp/watching").split(separator: "\n").map(String.init))
        }
        #expect(try eventually { try heard().isSuperset(of: ["SPOOF-own-ip", "SPOOF-own-arp"]) })
        let all = try heard()
        #expect(all == ["watching", "SPOOF-own-ip", "SPOOF-own-arp"], "\(vm) heard \(all)")
        // Whose address it was said to be is still told by its owner.
        #expect(try host.sfctl("exec", vm, "--", "ping", "-c", "1", "-W", "5", "dev.3").status == 0)
      }
      // As the guest's own tools would do it.
      try host.inside("dev.1", "ip", "link", "set", "eth0", "address", other.mac)
      #expect(try host.sfctl("exec", "dev.1", "--", "ping", "-c", "2", "-W", "1", "dev").status != 0)
      try host.inside("dev.1", "ip", "link", "set", "eth0", "address", own.mac)
      try host.inside("dev.1", "ip", "address", "add", "\(other.ip)/16", "dev", "eth0")
      #expect(
        try host.sfctl("exec", "dev.1", "--", "ping", "-c", "2", "-W", "1", "-I", other.ip, "dev").status != 0
      )
      #expect(try host.sfctl("exec", "dev.1", "--", "udhcpc", "-n", "-q", "-t", "2", "-T", "1").status != 0)
      #expect(try host.sfctl("exec", "dev.1", "--", "ping", "-c", "1", "-W", "5", "dev").status == 0)
      _ = fork
    }
  }

  @Test("A connection that was open at the fork: the parent keeps it, in clones it ends at once")
  func connections() throws {
    try host.withFork(clones: 1) { _ in
      try begin("dev.1", "sf-net serve 4000", says: "serving")
      try host.inside("dev", "sh", "-c", "rm -f /tmp/stop")
      let peer = try #require(try host.vm("dev.1")).ip
      try begin("dev", "sf-net hold \(peer) 4000", says: "connected")
      try host.withFork(clones: 3) { fork in
        for clone in fork.clones {
          #expect(
            try eventually { try host.inside(clone.name, "cat", "/tmp/connected").contains("lost: ") },
            "\(clone)")
          let said = try host.inside(clone.name, "cat", "/tmp/connected")
          #expect(said == "connected\nlost: Software caused connection abort\n", "\(said)")
        }
      }
      #expect(try host.inside("dev", "cat", "/tmp/connected") == "connected\n")
      try host.inside("dev", "touch", "/tmp/stop")
      #expect(try eventually { try host.inside("dev", "cat", "/tmp/connected") == "connected\nkept\n" })
    }
  }

  @Test("Outward only what is on the list, from each host; inward only to the parent")
  func outward() throws {
    let address = try #require(try host.hostAddress("h1")).split(separator: ":")[0]
    let outside = address.split(separator: ".").dropLast().joined(separator: ".") + ".250"
    #expect(
      try host.command(on: nil, ["ip", "address", "add", "\(outside)/24", "dev", "br0"]).wait().status == 0)
    let program = ProjectFiles.root + "/build/tests/sf-net"
    let servers = try ["4000", "4001"].map { try host.command(on: nil, [program, "serve", $0]) }
    defer { for server in servers { server.signal(SIGTERM) } }
    try host.device(
      "open",
      options: ["--subnet", "192.168.40.0/24", "--allow", "\(outside):4000", "--publish", "8080:4000"])
    defer { _ = try? host.sfctl("vm", "destroy", "open") }
    try host.withFork(of: "open", clones: 4) { fork in
      for vm in ["open"] + fork.clones.map(\.name) {
        #expect(try answers(vm, "tcp", outside, "4000", "out") == "out", "\(vm)")
        #expect(try answers(vm, "tcp", outside, "4001", "out") == "no answer")
        #expect(try answers(vm, "udp", outside, "4000", "out") == "no answer")
        // Another host is never outside.
        #expect(try answers(vm, "tcp", String(address), "7543", "out") == "no answer")
      }
      func fromOutside() throws -> Command.Outcome {
        try host.command(on: "h3", [program, "tcp", String(address), "8080", "in"]).wait()
      }
      try begin("open", "sf-net serve 4000", says: "serving")
      let inward = try fromOutside()
      #expect(inward.text == "in\n", "\(inward.text)\(inward.error)")
      // Its child goes with it: killall may come too late for one of the two.
      try host.inside("open", "sh", "-c", "killall sf-net || true")
      try begin("open.1", "sf-net serve 4000", says: "serving")
      #expect(try fromOutside().status != 0)
    }
    // A family that names nobody reaches nobody.
    #expect(try answers("dev", "tcp", outside, "4000", "out") == "no answer")
  }

  @Test(
    "The daemons are killed: the family goes on talking; when its VMs end nothing of it is left on any host")
  func kept() throws {
    #expect(try eventually { try host.vms().map(\.name) == ["dev"] })
    let fork: ForkDocument = try host.document("fork", "dev", "-n", "4")
    for name in ["h1", "h2"] { for pid in host.pids(of: "sfd", on: name) { kill(pid, SIGKILL) } }
    // As its service manager would.
    #expect(try host.on("h2", "ps").status == 0)
    for clone in fork.clones {
      #expect(
        try eventually {
          try host.sfctl("exec", clone.name, "--", "ping", "-c", "1", "-W", "5", "dev").status == 0
        })
    }
    // 24 MiB from host to host arrive whole.
    try host.inside(
      "dev", "sh", "-c", "(sf-net take 5000 2>/tmp/taking | sha256sum >/tmp/sum) </dev/null >/dev/null 2>&1 &"
    )
    #expect(try eventually { try host.inside("dev", "cat", "/tmp/taking") == "taking\n" })
    let peer = try #require(try host.vm("dev")).ip
    try host.inside("dev.4", "sh", "-c", "head -c 25165824 /dev/urandom >/tmp/data")
    try host.inside("dev.4", "sh", "-c", "sf-net send \(peer) 5000 </tmp/data")
    let sum = try host.inside("dev.4", "sh", "-c", "sha256sum </tmp/data")
    var said = ""
    _ = try eventually {
      said = try host.inside("dev", "cat", "/tmp/sum")
      return said == sum
    }
    #expect(said == sum)
    _ = try host.sfctl("kill", fork.ticket)
    _ = try host.sfctl("join", fork.ticket)
    #expect(try host.sfctl("vm", "destroy", "dev").status == 0)
    _ = try eventually { try host.networkLeft().isEmpty }
    let left = try host.networkLeft()
    #expect(left.isEmpty, "\(left)")
  }
}
