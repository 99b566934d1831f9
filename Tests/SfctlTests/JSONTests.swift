import Testing

/// `--json` to the byte: scripts rely on these names.
@Suite struct JSONTests {
  private func expect(_ arguments: [String], prints golden: String) async throws {
    try await FakeDaemon.serving { sfctl in
      let command = (["\"$SFCTL\""] + arguments + ["--json"]).joined(separator: " ")
      let outcome = try await sfctl.shell(command)
      #expect(outcome.output == golden + "\n")
      #expect(outcome.error == "")
      #expect(outcome.status == 0)
    }
  }

  private static let forked =
    #"{"clones":[{"activate_us":12000,"ended_us":90000,"host":"h1","name":"dev.1","private_bytes":8192,"#
    + #""processes":1,"ready_us":50000,"reason":"","state":"running","touched_bytes":4096,"vmid":1}],"descriptor_bytes":361000,"fork_us":51000,"free_pages":0,"free_unknown":"","granted":1,"parent":"dev","#
    + #""parent_pause_us":7400,"phases":[{"begin_us":10,"end_us":8000,"phase":"freeze"}],"#
    + #""ram_bytes":268435456,"requested":1,"snapshot":"s1","ticket":"t1","ticket_us":400000}"#

  @Test func fork() async throws { try await expect(["fork", "dev", "-n", "1"], prints: Self.forked) }

  @Test func clone() async throws { try await expect(["clone", "warm", "-n", "1"], prints: Self.forked) }

  private static let dev =
    #"{"cpu_limit_percent":20,"created_unix":1700000000,"host":"h1","image":"mini","ip":"","mac":"","memory_bytes":268435456,"#
    + #""name":"dev","pid":4711,"present_bytes":134217728,"private_bytes":133169152,"reason":"","#
    + #""role":"parent","snapshot":"","state":"running","ticket":"","vcpus":1,"vmid":0}"#

  @Test func ps() async throws { try await expect(["ps"], prints: #"{"vms":["# + Self.dev + "]}") }

  @Test func psOfAll() async throws {
    let lost =
      #"{"cpu_limit_percent":0,"created_unix":0,"host":"h1","image":"","ip":"10.0.0.2","mac":"52:54:00:00:00:02","#
      + #""memory_bytes":268435456,"name":"dev.2","pid":0,"present_bytes":0,"private_bytes":0,"#
      + #""reason":"its QEMU ended","role":"clone","snapshot":"s1","state":"lost","ticket":"t1","#
      + #""vcpus":0,"vmid":2}"#
    try await expect(["ps", "--all"], prints: #"{"vms":["# + Self.dev + "," + lost + "]}")
  }

  private static let ticket =
    #"{"bytes_received":9,"disk":{"bytes":4096,"fetched_bytes":8192,"layers":3},"#
    + #""fault_us":{"max":99,"p50":12,"p99":30},"faults":110,"host":"h1","kind":"ticket","#
    + #""mcdist":{"bytes_sent":6,"dropped":7,"lockstep_suppressed":3,"rate_limit_bytes_per_s":5,"#
    + #""requests":1,"retransmitted":4,"served":2},"name":"t1","pages_avoided":7,"pages_fetched":100,"#
    + #""pages_overwritten":0,"pages_prefetched":900,"pages_present":1000,"pages_pushed":11,"pages_shared":8,"#
    + #""pages_total":65536,"preimages_saved":5,"remote_fault_us":{"max":40,"p50":10,"p99":20},"#
    + #""snapshot":"s1","transport":"unicast","transport_reason":"no multicast arrives","whole":false}"#

  @Test func statsOfOne() async throws { try await expect(["stats", "t1"], prints: Self.ticket) }

  @Test func statsOfAll() async throws {
    try await expect(["stats"], prints: #"{"stats":["# + Self.ticket + "]}")
  }

  private static let warm =
    #"{"clones":2,"created_unix":1700000000,"descriptor_bytes":361000,"free_pages":0,"free_unknown":"","image":"mini","kept":true,"#
    + #""parent":"dev","parent_pause_us":7400,"present_bytes":4096,"ram_bytes":268435456,"snapshot":"warm"}"#

  @Test func snapshotCreate() async throws {
    try await expect(["snapshot", "create", "dev", "warm"], prints: Self.warm)
  }

  @Test func snapshotList() async throws {
    try await expect(["snapshot", "ls"], prints: #"{"snapshots":["# + Self.warm + "]}")
  }

  @Test func snapshotRemove() async throws {
    try await expect(["snapshot", "rm", "warm"], prints: #"{"removed":true,"snapshot":"warm"}"#)
  }

  @Test func join() async throws {
    try await expect(
      ["join", "t1"],
      prints: #"{"statuses":[{"how":"exited","reason":"","result":"NDI=","status":3,"vmid":1},"#
        + #"{"how":"lost","reason":"its QEMU ended","result":"","status":0,"vmid":2}],"ticket":"t1"}"#)
  }

  @Test func kill() async throws {
    try await expect(["kill", "t1"], prints: #"{"ended":2,"target":"t1"}"#)
  }

  @Test func stop() async throws {
    try await expect(["vm", "stop", "dev"], prints: #"{"name":"dev","state":"ended"}"#)
  }

  @Test func hosts() async throws {
    try await expect(
      ["host", "ls"],
      prints:
        #"{"hosts":[{"accelerator":"tcg","address":"10.0.0.1:7543","cpus":2,"memory_bytes":25769803776,"#
        + #""memory_free_bytes":21474836480,"name":"h1","state":"up","version":"0.1.0","vms":3}]}"#)
  }

  @Test func tickets() async throws {
    try await expect(
      ["ticket", "ls"],
      prints: #"{"tickets":[{"alive":2,"granted":3,"parent":"dev","requested":4,"snapshot":"s1","#
        + #""state":"cloned","ticket":"t1"}]}"#)
  }

  @Test func ticket() async throws { try await expect(["ticket", "show", "t1"], prints: Self.forked) }

  @Test func daemon() async throws {
    try await expect(
      ["daemon", "status"],
      prints: #"{"accelerator":"tcg","accelerator_reason":"TCG: no vmx","host":"h1","#
        + #""hypervisor_uri":"qemu:///embed","memtap_pid":12,"pid":11,"running":true,"version":"0.1.0"}"#)
  }

  @Test func top() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" top --json --interval 0.1 --count 2")
      let views = outcome.output.split(separator: "\n")
      #expect(views.count == 2)
      // The counters stand still, so all rates are 0.
      let hosts =
        #""hosts":[{"bytes_received_per_s":0,"clones":0,"cpus":2,"faults_per_s":0,"#
        + #""memory_bytes":25769803776,"memory_free_bytes":21474836480,"name":"h1","pages_per_s":0,"#
        + #""parents":1,"state":"up"}]"#
      let tickets =
        #""tickets":[{"alive":2,"granted":3,"pages_per_s":0,"parent":"dev","state":"cloned","ticket":"t1"}]"#
      #expect(views.allSatisfy { $0.contains(hosts) && $0.contains(tickets) }, "\(outcome.output)")
    }
  }
}
