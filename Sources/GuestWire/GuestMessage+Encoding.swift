extension GuestMessage {
  public var type: MessageType {
    switch self {
    case .hello: .hello
    case .prepare: .prepare
    case .resume: .resume
    case .identity: .identity
    case .shutdown: .shutdown
    case .network: .network
    case .welcome: .welcome
    case .prepared: .prepared
    case .identityTaken: .identityTaken
    case .networkTaken: .networkTaken
    case .requestTicket: .requestTicket
    case .clone: .clone
    case .checkpoint: .checkpoint
    case .createClones: .createClones
    case .exit: .exit
    case .join: .join
    case .kill: .kill
    case .cloneName: .cloneName
    case .cancel: .cancel
    case .ticketGranted: .ticketGranted
    case .cloned: .cloned
    case .checkpointed: .checkpointed
    case .joinStatus: .joinStatus
    case .cloneNamed: .cloneNamed
    case .done: .done
    case .exec: .exec
    case .execInput: .execInput
    case .execInputClosed: .execInputClosed
    case .execSignal: .execSignal
    case .execStarted: .execStarted
    case .execOutput: .execOutput
    case .execExited: .execExited
    case .failed: .failed
    case .execCredit: .execCredit
    case .run: .run
    case .runInput: .runInput
    case .runInputClosed: .runInputClosed
    case .runSignal: .runSignal
    case .runOutput: .runOutput
    case .runExited: .runExited
    case .runCredit: .runCredit
    }
  }

  /// The body of the message's frame; throws if a field exceeds its limit.
  public func encodedBody() throws(GuestWireError) -> [UInt8] {
    var writer = FieldWriter()
    try write(to: &writer)
    guard writer.bytes.count <= Frame.maximumBodyLength else {
      throw .tooLong(field: "body", length: writer.bytes.count, limit: Frame.maximumBodyLength)
    }
    return writer.bytes
  }

  private func write(to writer: inout FieldWriter) throws(GuestWireError) {
    switch self {
    case .shutdown, .checkpoint, .cancel, .done, .runInputClosed:
      break
    case .hello(let hello):
      writer.number(hello.session)
      writer.number(hello.epoch)
      writer.number(hello.hostTimeNanoseconds)
    case .resume(let epoch):
      writer.number(epoch)
    case .identity(let identity):
      try identity.write(to: &writer)
    case .welcome(let welcome):
      try writer.text("agentVersion", welcome.agentVersion)
      try writer.text("kernelRelease", welcome.kernelRelease)
      writer.number(welcome.vcpus)
      try writer.text("bootID", welcome.bootID)
      writer.number(welcome.epoch)
    case .network(let network):
      try writer.text("ipAddress", network.ipAddress)
      try writer.text("gateway", network.gateway)
      try writer.text("names", network.names, limit: FieldLimit.stream)
    case .prepare(let dropsCache):
      writer.number(UInt8(dropsCache ? 1 : 0))
    case .prepared(let reason, let address, let bytes):
      try writer.outcome(reason)
      writer.number(address)
      writer.number(bytes)
    case .networkTaken(let reason):
      try writer.outcome(reason)
    case .identityTaken(let taken):
      try writer.outcome(taken.reason)
      writer.number(taken.microseconds)
    case .requestTicket(let clones, let hierarchical, let host):
      writer.number(clones)
      writer.number(UInt8(hierarchical ? 1 : 0))
      try writer.text("host", host)
    case .clone(let ticket), .kill(let ticket):
      try writer.text("ticket", ticket)
    case .createClones(let snapshot, let ticket):
      try writer.text("snapshot", snapshot)
      try writer.text("ticket", ticket)
    case .exit(let vmid, let status, let result):
      writer.number(vmid)
      writer.number(status)
      try writer.data("result", result, limit: FieldLimit.result)
    case .join(let ticket, let timeoutMilliseconds):
      try writer.text("ticket", ticket)
      writer.number(timeoutMilliseconds)
    case .ticketGranted(let ticket, let granted):
      try writer.text("ticket", ticket)
      writer.number(granted)
    case .cloneName(let ticket, let vmid):
      try writer.text("ticket", ticket)
      writer.number(vmid)
    case .cloneNamed(let name):
      try writer.text("name", name)
    case .cloned(let vmid, let granted):
      writer.number(vmid)
      writer.number(granted)
    case .checkpointed(let snapshot):
      try writer.text("snapshot", snapshot)
    case .joinStatus(let status):
      writer.number(status.vmid)
      writer.number(status.how.rawValue)
      writer.number(status.status)
      try writer.data("result", status.result, limit: FieldLimit.result)
      try writer.text("reason", status.reason, limit: FieldLimit.text)
    case .exec(let exec):
      writer.number(exec.id)
      try writer.list("arguments", exec.arguments)
      try writer.list("environment", exec.environment)
    case .execInput(let id, let bytes):
      writer.number(id)
      try writer.data("bytes", bytes, limit: FieldLimit.stream)
    case .execInputClosed(let id):
      writer.number(id)
    case .execSignal(let id, let number), .execStarted(let id, let number),
      .execExited(let id, let number):
      writer.number(id)
      writer.number(number)
    case .execOutput(let id, let stream, let bytes):
      writer.number(id)
      writer.number(stream.rawValue)
      try writer.data("bytes", bytes, limit: FieldLimit.stream)
    case .failed(let errno, let message):
      writer.number(errno)
      try writer.text("message", message, limit: FieldLimit.text)
    case .execCredit(let id, let stream, let bytes):
      writer.number(id)
      writer.number(stream.rawValue)
      writer.number(bytes)
    case .run(let run):
      try writer.text("clone", run.clone)
      try writer.list("arguments", run.arguments)
      try writer.list("environment", run.environment)
    case .runInput(let bytes):
      try writer.data("bytes", bytes, limit: FieldLimit.stream)
    case .runSignal(let number), .runExited(let number):
      writer.number(number)
    case .runOutput(let stream, let bytes):
      writer.number(stream.rawValue)
      try writer.data("bytes", bytes, limit: FieldLimit.stream)
    case .runCredit(let stream, let bytes):
      writer.number(stream.rawValue)
      writer.number(bytes)
    }
  }
}

extension GuestMessage.Identity {
  fileprivate func write(to writer: inout FieldWriter) throws(GuestWireError) {
    writer.number(epoch)
    writer.number(vmid)
    writer.number(processes)
    try writer.text("hostname", hostname)
    try writer.fixed("machineID", machineID, count: Self.machineIDLength)
    writer.number(wallClockNanoseconds)
    try writer.fixed("seed", seed, count: Self.seedLength)
    try writer.text("ticket", ticket)
    try writer.text("snapshot", snapshot)
    writer.number(cloneRequest)
    try writer.text("ipAddress", ipAddress)
    try writer.text("macAddress", macAddress)
    try writer.text("gateway", gateway)
  }
}

extension FieldWriter {
  /// A flag "went well", and the reason why not.
  fileprivate mutating func outcome(_ reason: String?) throws(GuestWireError) {
    number(UInt8(reason == nil ? 1 : 0))
    try text("reason", reason ?? "", limit: FieldLimit.text)
  }
}
