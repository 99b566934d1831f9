/// What a freeze and an activation have in common.
extension LibvirtHypervisor {
  /// The machine's events from here on. Throws while another freeze or activation of it is in progress.
  func openMailbox(of domain: Domain, operation: String) throws(HypervisorError) -> MonitorMailbox {
    if let mailbox = connection.mailboxes.open(domain.name) { return mailbox }
    throw HypervisorError(
      .failed, operation: operation, machine: domain.name, cause: "it is being frozen or activated already")
  }

  /// QEMU's own words on the last migration.
  func migrationError(of domain: Domain) -> String {
    let answer = try? domain.command(#"{"execute":"query-migrate"}"#, operation: "asking")
    let words = answer?.split(separator: "\"") ?? []
    guard let key = words.firstIndex(of: "error-desc"), key + 2 < words.count else {
      return "it gave no reason"
    }
    return String(words[key + 2])
  }

  func endedMeanwhile(_ domain: Domain, _ operation: String) -> HypervisorError {
    let log = logTail(of: domain.name)
    return HypervisorError(
      .failed, operation: operation, machine: domain.name,
      cause: "the machine ended meanwhile\(log.isEmpty ? "" : ": \(log)")")
  }
}
