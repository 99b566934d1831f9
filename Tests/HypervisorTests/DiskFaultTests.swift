import Hypervisor
import Testing

@Suite struct DiskFaultEventTests {
  /// As QEMU 7.2 says it.
  private let event = """
    {"device": "", "nospace": true, "node-name": "d0123", "reason": "No space left on device", \
    "operation": "write", "action": "report"}
    """

  @Test func eventOfQEMU() {
    #expect(
      DiskFault(event: event) == DiskFault(node: "d0123", isWrite: true, reason: "No space left on device"))
    #expect(
      DiskFault(event: #"{"device":"","operation":"read","action":"report","reason":"Input/output error"}"#)
        == DiskFault(node: "", isWrite: false, reason: "Input/output error"))
  }

  @Test(arguments: ["", "{}", "[]", #"{"operation":"write"}"#]) func damagedEvent(details: String) {
    #expect(DiskFault(event: details) == nil)
  }

  @Test func oneOfManyIsTold() throws {
    let filter = DiskFaultFilter()
    let fault = try #require(DiskFault(event: event))
    let start = ContinuousClock.now
    #expect(filter.passes(fault, of: "dev", at: start))
    #expect(!filter.passes(fault, of: "dev", at: start + .seconds(59)))
    #expect(filter.passes(fault, of: "other", at: start + .seconds(1)))
    let another = DiskFault(node: "d0123", isWrite: false, reason: fault.reason)
    #expect(filter.passes(another, of: "dev", at: start + .seconds(1)))
    #expect(filter.passes(fault, of: "dev", at: start + .seconds(61)))
    filter.forget("dev")
    #expect(filter.passes(fault, of: "dev", at: start + .seconds(62)))
  }
}
