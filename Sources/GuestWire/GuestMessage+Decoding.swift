extension GuestMessage {
  /// The message in `frame`, if it is one that `receiver` may be sent.
  ///
  /// Every field must fit, and nothing may follow the last: a body has one meaning or none.
  public init(_ frame: Frame, receiver: Receiver) throws(GuestWireError) {
    guard let type = MessageType(rawValue: frame.type) else { throw .unknownType(frame.type) }
    switch (type.direction, receiver) {
    case (.both, _), (.toGuest, .guest), (.toHost, .host): break
    case (.toGuest, .host), (.toHost, .guest): throw .wrongDirection(type)
    }
    var reader = FieldReader(frame.body)
    self = try Self.read(type, from: &reader)
    try reader.finish()
  }

  public enum Receiver: Sendable { case guest, host }

  private static func read(
    _ type: MessageType, from reader: inout FieldReader
  ) throws(GuestWireError) -> GuestMessage {
    switch type {
    case .prepare: .prepare(dropsCache: try reader.flag("dropsCache"))
    case .shutdown: .shutdown
    case .checkpoint: .checkpoint
    case .cancel: .cancel
    case .done: .done
    case .hello:
      .hello(
        Hello(
          session: try reader.number("session"), epoch: try reader.number("epoch"),
          hostTimeNanoseconds: try reader.number("hostTimeNanoseconds")))
    case .resume: .resume(epoch: try reader.number("epoch"))
    case .identity: .identity(try Identity(from: &reader))
    case .welcome:
      .welcome(
        Welcome(
          agentVersion: try reader.text("agentVersion"),
          kernelRelease: try reader.text("kernelRelease"), vcpus: try reader.number("vcpus"),
          bootID: try reader.text("bootID"), epoch: try reader.number("epoch")))
    case .prepared:
      .prepared(
        reason: try reader.outcome(), noteAddress: try reader.number("noteAddress"),
        noteBytes: try reader.number("noteBytes"))
    case .network:
      .network(
        Network(
          ipAddress: try reader.text("ipAddress"), gateway: try reader.text("gateway"),
          names: try reader.text("names", limit: FieldLimit.stream)))
    case .networkTaken: .networkTaken(reason: try reader.outcome())
    case .identityTaken:
      .identityTaken(
        IdentityTaken(
          reason: try reader.outcome(), microseconds: try reader.number("microseconds")))
    case .requestTicket:
      .requestTicket(
        clones: try reader.number("clones"), hierarchical: try reader.flag("hierarchical"),
        host: try reader.text("host"))
    case .clone: .clone(ticket: try reader.text("ticket"))
    case .kill: .kill(ticket: try reader.text("ticket"))
    case .cloneName:
      .cloneName(ticket: try reader.text("ticket"), vmid: try reader.number("vmid"))
    case .cloneNamed: .cloneNamed(name: try reader.text("name"))
    case .createClones:
      .createClones(snapshot: try reader.text("snapshot"), ticket: try reader.text("ticket"))
    case .exit:
      .exit(
        vmid: try reader.number("vmid"), status: try reader.number("status"),
        result: try reader.data("result", limit: FieldLimit.result))
    case .join:
      .join(
        ticket: try reader.text("ticket"),
        timeoutMilliseconds: try reader.number("timeoutMilliseconds"))
    case .ticketGranted:
      .ticketGranted(ticket: try reader.text("ticket"), granted: try reader.number("granted"))
    case .cloned:
      .cloned(vmid: try reader.number("vmid"), granted: try reader.number("granted"))
    case .checkpointed: .checkpointed(snapshot: try reader.text("snapshot"))
    case .joinStatus: .joinStatus(try JoinStatus(from: &reader))
    case .exec:
      .exec(
        Exec(
          id: try reader.number("id"), arguments: try reader.list("arguments"),
          environment: try reader.list("environment")))
    case .execInput:
      .execInput(
        id: try reader.number("id"), bytes: try reader.data("bytes", limit: FieldLimit.stream))
    case .execInputClosed: .execInputClosed(id: try reader.number("id"))
    case .execSignal:
      .execSignal(id: try reader.number("id"), signal: try reader.number("signal"))
    case .execStarted: .execStarted(id: try reader.number("id"), pid: try reader.number("pid"))
    case .execOutput:
      .execOutput(
        id: try reader.number("id"), stream: try reader.stream(),
        bytes: try reader.data("bytes", limit: FieldLimit.stream))
    case .execExited:
      .execExited(id: try reader.number("id"), status: try reader.number("status"))
    case .failed:
      .failed(
        errno: try reader.number("errno"),
        message: try reader.text("message", limit: FieldLimit.text))
    case .execCredit:
      .execCredit(
        id: try reader.number("id"), stream: try reader.stream(),
        bytes: try reader.number("bytes"))
    case .run:
      .run(
        Run(
          clone: try reader.text("clone"), arguments: try reader.list("arguments"),
          environment: try reader.list("environment")))
    case .runInput: .runInput(bytes: try reader.data("bytes", limit: FieldLimit.stream))
    case .runInputClosed: .runInputClosed
    case .runSignal: .runSignal(signal: try reader.number("signal"))
    case .runOutput:
      .runOutput(
        stream: try reader.stream(), bytes: try reader.data("bytes", limit: FieldLimit.stream))
    case .runExited: .runExited(status: try reader.number("status"))
    case .runCredit:
      .runCredit(stream: try reader.stream(), bytes: try reader.number("bytes"))
    }
  }
}

extension GuestMessage.Identity {
  fileprivate init(from reader: inout FieldReader) throws(GuestWireError) {
    self.init(
      epoch: try reader.number("epoch"), vmid: try reader.number("vmid"),
      processes: try reader.number("processes"), hostname: try reader.text("hostname"),
      machineID: try reader.fixed("machineID", count: Self.machineIDLength),
      wallClockNanoseconds: try reader.number("wallClockNanoseconds"),
      seed: try reader.fixed("seed", count: Self.seedLength), ticket: try reader.text("ticket"),
      snapshot: try reader.text("snapshot"), cloneRequest: try reader.number("cloneRequest"),
      ipAddress: try reader.text("ipAddress"), macAddress: try reader.text("macAddress"),
      gateway: try reader.text("gateway"))
  }
}

extension GuestMessage.JoinStatus {
  fileprivate init(from reader: inout FieldReader) throws(GuestWireError) {
    let vmid: UInt32 = try reader.number("vmid")
    let how: UInt8 = try reader.number("how")
    guard let end = How(rawValue: how) else {
      throw .unknownValue(field: "how", value: UInt64(how))
    }
    self.init(
      vmid: vmid, how: end, status: try reader.number("status"),
      result: try reader.data("result", limit: FieldLimit.result),
      reason: try reader.text("reason", limit: FieldLimit.text))
  }
}

extension FieldReader {
  /// Nil: it went well. A reason beside a success is refused.
  fileprivate mutating func outcome() throws(GuestWireError) -> String? {
    let isSuccess = try flag("ok")
    let reason = try text("reason", limit: FieldLimit.text)
    if isSuccess && !reason.isEmpty {
      throw .wrongLength(field: "reason", length: reason.utf8.count, expected: 0)
    }
    return isSuccess ? nil : reason
  }

  fileprivate mutating func stream() throws(GuestWireError) -> ExecStream {
    let value: UInt8 = try number("stream")
    guard let stream = ExecStream(rawValue: value) else {
      throw .unknownValue(field: "stream", value: UInt64(value))
    }
    return stream
  }
}
