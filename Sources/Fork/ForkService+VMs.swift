import Foundation
import GuestWire
import Hypervisor
import Memtap

extension ForkService {
  struct StartRequest: Sendable {
    var name: String
    var imageDirectory: String
    var memoryBytes: UInt64
    var vcpus: Int
    var cpuLimitPercent: Int
    var disks: [DiskRequest] = []
    var network = NetworkRequest()
    var traits = GuestTraits()
  }

  /// Starts a device VM. On return its agent has answered; on failure nothing of it is left.
  func startVM(_ request: StartRequest, report: Report) async throws -> VMRecord {
    let what = "cannot start \(request.name)"
    try checkName(request.name)
    if let existing = guests[request.name], existing.record.state != .ended {
      throw taken(request.name, what)
    }
    guard (1...64).contains(request.vcpus) else {
      throw ForkError(.invalid, "\(what): \(request.vcpus) virtual CPUs. Ask for 1 to 64.")
    }
    if request.traits.isAgentless, request.network.isWanted {
      throw ForkError(
        .invalid,
        "\(what): it would have a network card, and without an agent its clones keep its address. Add --no-network."
      )
    }
    guard (0...100).contains(request.cpuLimitPercent) else {
      throw ForkError(.invalid, "\(what): a limit of \(request.cpuLimitPercent) %. Ask for 1 to 100.")
    }
    let image = try GuestImage.read(request.imageDirectory, what: what)
    if request.memoryBytes < image.minimumMemoryBytes || request.memoryBytes % 4096 != 0 {
      throw ForkError(
        .invalid,
        "\(what): image \(image.name) needs at least \(byteText(image.minimumMemoryBytes)), in whole pages of 4 KiB. Ask for more with --memory."
      )
    }
    let available = HostMemory.read().available
    if request.memoryBytes + EmbeddedResourceManager.qemuBytes > available {
      throw ForkError(
        .refused,
        "\(what): host \(configuration.hostName) has \(byteText(available)) free and the VM needs \(byteText(request.memoryBytes)). Free memory or ask for less with --memory."
      )
    }
    var record = VMRecord(
      name: request.name, uuid: UUID().uuidString.lowercased(), role: .parent, state: .starting, vmid: 0,
      processes: 1, image: image.name, memoryBytes: Int64(request.memoryBytes), vcpus: request.vcpus,
      kernelPath: image.kernelPath, initrdPath: image.initrdPath, commandLine: image.commandLine,
      generationID: UUID().uuidString.lowercased(), shimToken: Self.randomHex(32),
      epoch: Int64.random(in: 1...Int64.max), cpuLimitPercent: request.cpuLimitPercent,
      createdUnix: Self.unixNow(), network: try await makeCard(request.network, of: request.name, what: what),
      traits: request.traits)
    guard guests[record.name]?.record.state ?? .ended == .ended else { throw taken(record.name, what) }
    guests[record.name] = Guest(record: record)
    await save(record.name)
    do {
      let disks = (image.rootDisk.map { [.root(of: $0)] } ?? []) + request.disks
      if !disks.isEmpty {
        record.disks = try await makeDisks(disks, what: what)
        guests[record.name]?.record.disks = record.disks
        await save(record.name)
      }
      await report(Progress(phase: "boot", done: 0, total: 1, text: "starting \(record.name)"))
      try await launch(record, what: what)
      if !record.traits.isAgentless { try await awaitAgent(of: record, report) }
      // It boots at full speed: under emulation at 5 % it would take a minute.
      if record.cpuLimitPercent > 0 {
        try await withHypervisor {
          try $0.limitProcessors(of: request.name, percent: request.cpuLimitPercent)
        }
      }
    } catch {
      let tail = consoleTail(record.name)
      await discard(record.name)
      guard let error = error as? GuestError else { throw ForkError.wrap(what, error) }
      throw ForkError(
        .failed,
        "\(what): \(error)\(tail.isEmpty ? "" : "; its console ended with: \(tail)"). Check the image.")
    }
    guard guests[record.name] != nil else {
      throw ForkError(
        .failed, "\(what): it ended while it started. See \(configuration.consoleLogPath(record.name)).")
    }
    guests[record.name]?.record.state = .running
    await save(record.name)
    return guests[record.name]?.record ?? record
  }

  private func awaitAgent(of record: VMRecord, _ report: Report) async throws {
    await report(Progress(phase: "boot", done: 0, total: 1, text: "waiting for its agent"))
    let session = try await connect(record.name)
    let welcome = try await session.hello(
      session: UInt64.random(in: 1...UInt64.max), epoch: UInt64(record.epoch),
      hostTimeNanoseconds: Self.wallClockNanoseconds(), timeoutSeconds: 180)
    try await tellNetwork(record.name, session)
    log.info(
      "\(record.name) runs",
      metadata: [
        "agent": "\(welcome.agentVersion)", "kernel": "\(welcome.kernelRelease)",
      ])
  }

  private func taken(_ name: String, _ what: String) -> ForkError {
    ForkError(
      .exists, "\(what): a VM of that name exists. Choose another, or end it with sfctl vm destroy \(name).")
  }

  /// Stops a device VM or a clone. An orderly end (`destroy` false) waits `timeoutSeconds` for the guest, then ends it.
  /// Clones of it live on: what they lack is copied from it first.
  func stopVM(_ name: String, destroy: Bool, timeoutSeconds: Int) async throws {
    let guest = try guest(name)
    await completeSnapshots(of: name)
    if !destroy, guest.record.state == .running, guest.session != nil || guest.record.traits.isAgentless {
      guests[name]?.isStopping = true
      if let session = guest.session {
        session.shutdown()
      } else {
        try? await withHypervisor { try $0.requestShutdown(name) }
      }
      let deadline = ContinuousClock.now + .seconds(timeoutSeconds > 0 ? timeoutSeconds : 30)
      while ContinuousClock.now < deadline, isAlive(name) {
        try await Task.sleep(for: .milliseconds(20))
      }
    }
    if guest.record.role == .parent {
      await parentEnded(name, cause: "was \(destroy ? "destroyed" : "stopped")")
    } else {
      await endClone(name, .killed, reason: "ended by sfctl vm \(destroy ? "destroy" : "stop")")
    }
    await untilGone(name)
  }

  /// Returns when nothing of an ending VM is left, whoever ends it.
  func untilGone(_ name: String) async {
    let deadline = ContinuousClock.now + .seconds(30)
    while guests[name]?.record.state == .ending, ContinuousClock.now < deadline {
      try? await Task.sleep(for: .milliseconds(10))
    }
  }

  func isAlive(_ name: String) -> Bool {
    guard let record = guests[name]?.record else { return false }
    return !record.state.isOver
  }

  // MARK: steps shared by parents and slots

  func checkName(_ name: String) throws(ForkError) {
    let good = name.wholeMatch(of: /[A-Za-z0-9][A-Za-z0-9_-]{0,31}/) != nil
    if !good {
      throw ForkError(
        .invalid,
        "\"\(name)\" is no name: letters, digits, - and _, at most 32, the first a letter or digit. Choose another."
      )
    }
  }

  /// The domain runs (or waits, of a slot), and its RAM shim has reported to the pager.
  func launch(_ record: VMRecord, what: String) async throws {
    hold(record.name)
    defer { letGo(record.name) }
    try FileManager.default.createDirectory(
      atPath: configuration.vmDirectory(record.name), withIntermediateDirectories: true)
    let spec = try machineSpec(record, network: try await addCard(of: record))
    let token = record.shimToken
    let name = record.name
    let ramBytes = UInt64(record.memoryBytes)
    try await exportDisks(of: record)
    try await memtap.run { try $0.expect(vm: name, token: token, ramBytes: ramBytes) }
    let status = try await withHypervisor { try $0.start(spec) }
    guard guests[name]?.record.state.isOver == false else {
      throw ForkError(.failed, "\(what): it was ended meanwhile. Start it again.")
    }
    guests[name]?.record.pid = Int64(status.pid)
    try await memtap.run { try $0.waitForShim(vm: name, timeoutMilliseconds: 10_000) }
  }

  private func machineSpec(_ record: VMRecord, network: MachineNetwork?) throws(ForkError) -> MachineSpec {
    var environment = configuration.memtap.shimEnvironment(
      library: try configuration.shimLibraryPath(), token: record.shimToken)
    if record.role != .parent { environment["SNOWFORK_SHIM_NO_HUGE_PAGES"] = "1" }
    return MachineSpec(
      name: record.name, uuid: record.uuid, role: record.role == .parent ? .parent : .slot,
      memoryBytes: UInt64(record.memoryBytes), vcpus: record.vcpus,
      kernelPath: record.role == .parent ? record.kernelPath : nil,
      initrdPath: record.role == .parent ? record.initrdPath : nil,
      kernelCommandLine: record.commandLine, disks: machineDisks(of: record), network: network,
      generationID: record.generationID,
      agentSocketPath: configuration.agentSocketPath(record.name),
      consoleLogPath: configuration.consoleLogPath(record.name),
      environment: environment)
  }

  /// Connects to the VM's agent port and listens.
  func connect(_ name: String) async throws -> GuestSession {
    guard let record = guests[name]?.record else { throw GuestError.notConnected }
    let session = try await GuestSession.connect(
      vm: name, socketPath: configuration.agentSocketPath(name), epoch: UInt64(record.epoch), on: loops)
    guests[name]?.session?.close()
    guests[name]?.session = session
    Task { await self.listen(to: session) }
    return session
  }

  /// The last line that the guest wrote to its console.
  private func consoleTail(_ name: String) -> String {
    guard let data = FileManager.default.contents(atPath: configuration.consoleLogPath(name)) else {
      return ""
    }
    let text = String(decoding: data.suffix(512), as: UTF8.self)
    return text.split(whereSeparator: \.isNewline).last.map { $0.trimmingCharacters(in: .whitespaces) } ?? ""
  }
}

/// What `images/build` leaves in an image's directory.
struct GuestImage: Sendable {
  var name: String
  var kernelPath: String
  var initrdPath: String
  var commandLine: String
  var minimumMemoryBytes: UInt64
  /// Of an image whose root file system is on a disk.
  var rootDisk: String?

  private struct File: Decodable {
    var commandLine: String
    var minimumMemoryBytes: UInt64
    var rootDisk: String?
  }

  static func read(_ directory: String, what: String) throws(ForkError) -> GuestImage {
    guard let data = FileManager.default.contents(atPath: directory + "/image.json") else {
      let name = (directory as NSString).lastPathComponent
      throw ForkError(
        .failed,
        "\(what): there is no image in \(directory). Make it with sfctl image build \(name), or name another with --image."
      )
    }
    let file: File
    do {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      file = try decoder.decode(File.self, from: data)
    } catch {
      throw ForkError(
        .failed, "\(what): \(directory)/image.json does not read as an image. Make the image again.")
    }
    let image = GuestImage(
      name: (directory as NSString).lastPathComponent, kernelPath: directory + "/vmlinuz",
      initrdPath: directory + "/initrd",
      commandLine: file.commandLine, minimumMemoryBytes: file.minimumMemoryBytes,
      rootDisk: file.rootDisk.map { "\(directory)/\(($0 as NSString).lastPathComponent)" })
    let files = [image.kernelPath, image.initrdPath] + [image.rootDisk].compactMap(\.self)
    for path in files where !FileManager.default.fileExists(atPath: path) {
      throw ForkError(.failed, "\(what): \(path) is missing. Make the image again.")
    }
    return image
  }
}
