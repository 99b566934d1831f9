import Descriptor
import Testing

/// The bytes that version 2 wrote on the day it was fixed: a change of the format must change the version.
@Suite struct GoldenTests {
  static let golden: [UInt8] = hex(
    """
    534e4f5746524b1a                  ; magic
    0200400005000000                  ; version 2, header of 64 bytes, 5 sections
    16020000000000000000000000000000  ; 534 bytes in all, reserved
    c26da216106d7ded517881e51ad2c4c006499efcd643160abe5b4beb873c7b11; SHA-256 of all but these
    010000000100000080010000000000004d00000000000000; metadata: type 1, required, offset, length 77
    3319f47861802e64ce09217e50dfbc11de202fa6b43b6a4c3ef51903e168650c; its SHA-256
    0000000000000000                  ; reserved
    0200000001000000cd010000000000002c00000000000000; disks: type 2, required, offset, length 44
    42603b567f592912a0d5c1e168b570c6e61f85d88b7dec87892b82a1adf8075d; its SHA-256
    0000000000000000                  ; reserved
    0300000001000000f9010000000000000400000000000000; page runs: type 3, required, offset, length 4
    c34c0c5f833f2a1ef08513aabe715d4b0e050bbc64e34fecf024377bbe6ce66a; its SHA-256
    0000000000000000                  ; reserved
    0500000001000000fd010000000000000400000000000000; device state: type 5, required, offset, length 4
    5f78c33274e43fa9de5659265c1d917e25c03722dcb0b8d27db8d5feaa813953; its SHA-256
    0000000000000000                  ; reserved
    060000000100000001020000000000001500000000000000; network: type 6, required, offset, length 21
    da83f4205fcef9e8a06f3a3bb0fe7559b5da34ed0b1ff6eb5bc43fd6fd545733; its SHA-256
    0000000000000000                  ; reserved
    0807060504030201000010000000000002000000; created, RAM of 256 pages, 2 virtual CPUs
    02007331                          ; snapshot “s1”
    0300646576                        ; parent “dev”
    04006d696e69                      ; image “mini”
    190071656d7520372e322e32322070632071656d75363420746367; compatibility “qemu 7.2.22 pc qemu64 tcg”
    0d00636f6e736f6c653d7474795330    ; kernel command line “console=ttyS0”
    01000000                          ; one disk
    001000000000000002000000          ; of 4096 bytes, two layers
    02006131050071636f773202006831    ; “a1”, “qcow2”, on “h1”
    02006232030072617702006832        ; “b2”, “raw”, on “h2”
    0002                              ; gap 0, 3 pages
    7f7d                              ; gap 127, 126 pages
    deadbeef                          ; device state
    110035323a35343a30303a31323a33343a3536; MAC address
    0000                              ; no IP address
    """)

  @Test func writesTheGoldenBytes() throws {
    let bytes = try sampleDescriptor().encode()
    #expect(bytes == Self.golden, "\(bytes.map { hexByte($0) }.joined())")
  }

  @Test func readsTheGoldenBytes() throws {
    #expect(try VMDescriptor.decode(Self.golden) == sampleDescriptor())
  }
}

private func hex(_ text: String) -> [UInt8] {
  text.split(whereSeparator: \.isNewline)
    .map { $0.prefix { $0 != ";" } }
    .flatMap { $0.split(separator: " ") }
    .flatMap { word in
      stride(from: 0, to: word.count, by: 2).compactMap { offset in
        UInt8(word.dropFirst(offset).prefix(2), radix: 16)
      }
    }
}

private func hexByte(_ byte: UInt8) -> String {
  String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
}
