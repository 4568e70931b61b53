"""The messages of gRPC: their bytes, and their neighbours in the process."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from livepeer.client import _grpc
from livepeer.client._grpc import lp_rpc_pb2 as net


def test_the_numbers_are_those_of_the_network() -> None:
    """Bytes written by hand from go-livepeer's net/lp_rpc.proto."""
    token = net.AuthToken(token=b"t", session_id="s", expiration=1)
    assert token.SerializeToString() == bytes.fromhex("0a0174 120173 1801")
    assert net.SegData(auth_token=token).SerializeToString() == bytes.fromhex("42 08") + bytes.fromhex(
        "0a0174 120173 1801"
    )
    asked = net.OrchestratorRequest(ignoreCapacityCheck=True)
    asked.capabilities.constraints.PerCapability[35].models["m"].warm = True
    assert asked.SerializeToString() == bytes.fromhex("1a11 2a0f 120d 0823 1209 0a07 0a016d 1202 0801 2001")
    info = net.OrchestratorInfo.FromString(
        bytes.fromhex("0a0175 3208 0a0174 120173 1801 8a02 05 1825 22016e")
    )
    assert info.transcoder == "u"
    assert info.auth_token.session_id == "s"
    assert [(price.capability, price.constraint) for price in info.capabilities_prices] == [(37, "n")]
    assert not info.HasField("price_info")


def test_unknown_fields_stay() -> None:
    sent = bytes.fromhex("0a0175") + bytes.fromhex("8202 02 0800")  # storage, which this SDK doesn't use
    assert net.OrchestratorInfo.FromString(sent).SerializeToString() == sent


def test_another_package_may_have_messages_of_the_same_names() -> None:
    """As the published peer has: its file has this name, too, and lists other messages."""
    file = descriptor_pb2.FileDescriptorProto(name="lp_rpc.proto", package="net", syntax="proto3")
    field = file.message_type.add(name="AuthToken").field.add(name="other", number=9)
    field.type, field.label = field.TYPE_STRING, field.LABEL_OPTIONAL
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    theirs = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("net.AuthToken"))
    assert theirs(other="x").SerializeToString() == bytes.fromhex("4a0178")
    assert net.AuthToken(session_id="s").SerializeToString() == bytes.fromhex("120173")


def test_the_method_is_the_one_of_the_service() -> None:
    (service,) = net.DESCRIPTOR.services_by_name.values()
    (method,) = service.methods
    assert f"/{service.full_name}/{method.name}" == _grpc.GET_ORCHESTRATOR
    assert method.input_type.name == "OrchestratorRequest"
    assert method.output_type.name == "OrchestratorInfo"
