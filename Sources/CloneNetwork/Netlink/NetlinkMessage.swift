import CLibnl

/// A request that is being written: a fixed header, then attributes.
final class NetlinkMessage {
  let pointer: OpaquePointer

  /// `type` is one of RTM_…; NLM_F_REQUEST and NLM_F_ACK are added when it is sent.
  init<Header: BitwiseCopyable>(_ type: some BinaryInteger, flags: CInt = 0, header: Header) {
    // Without memory for a page nothing goes on: libnl gives nil only then.
    pointer = nlmsg_alloc_simple(CInt(type), flags)!
    append(header)
  }

  deinit { nlmsg_free(pointer) }

  /// Raw bytes where a structure stands between attributes.
  func append<Value: BitwiseCopyable>(_ value: Value) {
    withUnsafeBytes(of: value) { bytes in
      let result = nlmsg_append(
        pointer, UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count, CInt(NLMSG_ALIGNTO))
      precondition(result == 0, "a netlink message has outgrown its page")
    }
  }

  func put(_ type: some BinaryInteger, _ bytes: [UInt8]) {
    let result = nla_put(pointer, CInt(type), CInt(bytes.count), bytes)
    precondition(result == 0, "a netlink message has outgrown its page")
  }

  func put(_ type: some BinaryInteger, _ text: String) { put(type, Array(text.utf8) + [0]) }

  /// In the machine's order.
  func put<Value: BitwiseCopyable & FixedWidthInteger>(_ type: some BinaryInteger, _ value: Value) {
    put(type, withUnsafeBytes(of: value, Array.init))
  }

  func put<Value: BitwiseCopyable>(_ type: some BinaryInteger, structure value: Value) {
    put(type, withUnsafeBytes(of: value, Array.init))
  }

  func put(_ type: some BinaryInteger, _ address: IPv4Address) { put(type, address.bytes) }
  func put(_ type: some BinaryInteger, _ address: MACAddress) { put(type, address.bytes) }

  /// Attributes within an attribute.
  func nest(_ type: some BinaryInteger, _ body: () -> Void) {
    let start = nla_nest_start(pointer, CInt(type))
    precondition(start != nil, "a netlink message has outgrown its page")
    body()
    nla_nest_end(pointer, start)
  }
}

/// The attributes of an answer, by type; of two with the same type the last.
struct NetlinkAttributes {
  private var values: [UInt16: ArraySlice<UInt8>] = [:]

  ///      0        2        4
  ///     ┌────────┬────────┬─────────┬─────────┐
  ///     │ length │ type   │ value … │ padding │  length with the 4 bytes before the value, padding to 4
  ///     └────────┴────────┴─────────┴─────────┘
  /// What does not fit ends the list.
  init(_ bytes: ArraySlice<UInt8>) {
    var rest = bytes
    while rest.count >= 4 {
      let first = rest.startIndex
      let length = Int(rest[first]) | Int(rest[first + 1]) << 8
      let type = UInt16(rest[first + 2]) | UInt16(rest[first + 3]) << 8
      guard length >= 4, length <= rest.count else { return }
      // The two highest bits are flags: nested, network's order.
      values[type & 0x3FFF] = rest[(first + 4)..<(first + length)]
      rest = rest.dropFirst((length + 3) & ~3)
    }
  }

  subscript(_ type: some BinaryInteger) -> ArraySlice<UInt8>? { values[UInt16(type)] }

  func nested(_ type: some BinaryInteger) -> NetlinkAttributes { NetlinkAttributes(self[type] ?? []) }

  func text(_ type: some BinaryInteger) -> String? {
    self[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }

  /// In the machine's order, which is little-endian on all that we run on.
  func number(_ type: some BinaryInteger) -> UInt32? {
    self[type].map { $0.reversed().reduce(0) { $0 << 8 | UInt32($1) } }
  }

  func address(_ type: some BinaryInteger) -> IPv4Address? {
    self[type].flatMap { $0.count == 4 ? IPv4Address(bytes: $0) : nil }
  }
}
