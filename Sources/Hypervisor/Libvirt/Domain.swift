import CLibvirt
import Glibc

/// A libvirt domain, and the QMP commands that libvirt has no call for.
///
/// A command through libvirt's own monitor keeps libvirt's view of the machine right, for it sees the same events.
final class Domain {
  let pointer: virDomainPtr
  let name: String

  init(taking pointer: virDomainPtr) {
    self.pointer = pointer
    name = String(cString: virDomainGetName(pointer))
  }

  /// The domain of this name. Throws `.notFound`.
  init(_ name: String, of connection: LibvirtConnection, operation: String) throws(HypervisorError) {
    guard let pointer = virDomainLookupByName(connection.pointer, name) else {
      throw .last(operation, machine: name)
    }
    self.pointer = pointer
    self.name = name
  }

  deinit { virDomainFree(pointer) }

  /// Sends one QMP command, which may take a descriptor (`getfd`), and gives QEMU's answer as JSON text.
  /// An error that QEMU answers is thrown with QEMU's own words.
  @discardableResult
  func command(
    _ json: String, descriptor: CInt? = nil, operation: String
  ) throws(HypervisorError) -> String {
    var answer: UnsafeMutablePointer<CChar>?
    var descriptors = descriptor.map { [$0] } ?? []
    let result = virDomainQemuMonitorCommandWithFiles(
      pointer, json, UInt32(descriptors.count), &descriptors, nil, nil, &answer, 0)
    guard result == 0, let answer else { throw .last(operation, machine: name) }
    defer { free(answer) }
    let text = String(cString: answer)
    if let cause = Self.errorText(in: text) {
      throw HypervisorError(.failed, operation: operation, machine: name, cause: cause)
    }
    return text
  }

  /// What is needed once in a QEMU's life before its first freeze or its activation.
  ///
  /// Shared RAM stays out of the stream; migration events are sent; and nothing throttles the stream, which ends
  /// in memory. QEMU announces no address after it: that of the parent is not the clone's.
  func prepareForMigration(operation: String) throws(HypervisorError) {
    try command(
      """
      {"execute":"migrate-set-capabilities","arguments":{"capabilities":[\
      {"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}}
      """, operation: operation)
    try command(
      """
      {"execute":"migrate-set-parameters","arguments":{"max-bandwidth":\(Int64(1) << 40),"downtime-limit":2000,\
      "announce-rounds":0}}
      """, operation: operation)
  }

  /// The role in our metadata element; nil for a domain that is not ours.
  var role: MachineSpec.Role? {
    guard
      let text = virDomainGetMetadata(
        pointer, CInt(VIR_DOMAIN_METADATA_ELEMENT.rawValue), DomainDefinition.metadataNamespace, 0)
    else { return nil }
    defer { free(text) }
    let element = String(cString: text)
    return MachineSpec.Role.allCases.first { role in
      ["'", "\""].contains { element.contains("role=\($0)\(role.rawValue)\($0)") }
    }
  }

  var uuid: String {
    var buffer = [CChar](repeating: 0, count: Int(VIR_UUID_STRING_BUFLEN))
    virDomainGetUUIDString(pointer, &buffer)
    return buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  var state: MachineStatus.State {
    var state: CInt = 0
    guard virDomainGetState(pointer, &state, nil, 0) == 0 else { return .ended }
    return switch virDomainState(UInt32(state)) {
    case VIR_DOMAIN_RUNNING, VIR_DOMAIN_BLOCKED: .running
    case VIR_DOMAIN_PAUSED, VIR_DOMAIN_PMSUSPENDED: .paused
    default: .ended
    }
  }

  /// The `desc` of an error answer: `{"id":"libvirt-9","error":{"class":"GenericError","desc":"…"}}`.
  private static func errorText(in answer: String) -> String? {
    guard answer.hasPrefix("{\"error\"") || answer.contains("\"error\":{\"class\"") else { return nil }
    guard let start = answer.firstRange(of: "\"desc\":\"") else { return answer }
    let rest = answer[start.upperBound...]
    return String(rest[..<(rest.firstRange(of: "\"}")?.lowerBound ?? rest.endIndex)])
  }
}
