"""What client and daemon share: the wire's stubs, the forms of request and artifact, digests and bounds.

Neither torch nor grpc is imported here; `compile_wire.v1` holds the generated stubs, which import protobuf.
"""
