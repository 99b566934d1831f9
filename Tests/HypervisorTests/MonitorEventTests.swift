import Dispatch
import Hypervisor
import Testing

@Suite struct MonitorEventTests {
  private func event(_ name: String, _ details: String = "") -> MonitorEvent? {
    MonitorEvent(name: name, seconds: 3, microseconds: 7, details: details)
  }

  @Test func eventsThatFreezesWaitFor() {
    #expect(event("STOP")?.kind == .stopped)
    #expect(event("RESUME")?.kind == .resumed)
    #expect(event("RESUME")?.time == 3_000_007)
    #expect(event("NIC_RX_FILTER_CHANGED") == nil)
  }

  @Test(arguments: [
    #"{"status":"completed"}"#, #"{ "status" : "completed" }"#, #"{"x":"status","status":"completed"}"#,
  ])
  func migrationStatus(details: String) {
    #expect(event("MIGRATION", details)?.kind == .migration("completed"))
  }

  @Test(arguments: ["", "{}", #"{"status":7}"#, #"{"status"#]) func damagedDetails(details: String) {
    #expect(event("MIGRATION", details)?.kind == .migration(""))
  }

  @Test func mailboxesKeepOnlyWhatIsWaitedFor() throws {
    let mailboxes = MonitorMailboxes()
    let stop = try #require(event("STOP"))
    mailboxes.post(stop, to: "dev")
    let mailbox = try #require(mailboxes.open("dev"))
    #expect(mailboxes.open("dev") == nil, "a second operation on the same machine")
    mailboxes.post(stop, to: "dev")
    mailboxes.post(stop, to: "other")
    #expect(mailbox.next(before: .now())?.kind == .stopped)
    #expect(mailbox.next(before: .now()) == nil)
    mailboxes.close("dev")
    #expect(mailboxes.open("dev") != nil)
  }
}
