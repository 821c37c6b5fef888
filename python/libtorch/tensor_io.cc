#include "python/libtorch/tensor_io.h"

#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/dtype.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

absl::Status Refuse(const std::string& property) {
  return absl::UnimplementedError(absl::StrCat("cannot keep ", property));
}

// Types whose values torch computes with little or not at all: copies go through an integer view of the same size.
at::ScalarType CopyTypeOf(at::ScalarType type) {
  switch (c10::elementSize(type)) {
    case 1:
      return at::kByte;
    case 2:
      return at::kShort;
    case 4:
      return at::kInt;
    default:
      return type;
  }
}

bool IsOpaque(at::ScalarType type) {
  const int number = static_cast<int>(type);
  return (number >= 18 && number <= 26) || number >= 44;  // bits*, float8_*, float4_*
}

at::Tensor ContiguousOnCpu(const at::Tensor& tensor) {
  if (!IsOpaque(tensor.scalar_type())) return tensor.to(at::kCPU).contiguous();
  const at::ScalarType type = tensor.scalar_type();
  return tensor.view(CopyTypeOf(type)).to(at::kCPU).contiguous().view(type);
}

// "bfloat16" where the store has a name for it, else torch's "BFloat16".
std::string NameOf(at::ScalarType type) {
  const Dtype* known = FindDtype(static_cast<uint16_t>(type));
  return known != nullptr ? known->name : c10::toString(type);
}

std::string ShapeText(std::span<const uint64_t> shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", shape[i]);
  return absl::StrCat(text, ")");
}

}  // namespace

absl::Status CheckStorable(const at::Tensor& tensor) {
  if (!tensor.defined()) return Refuse("an undefined tensor");
  if (tensor.is_nested()) return Refuse("a nested tensor");
  if (tensor.is_quantized()) return Refuse("a quantized tensor: its scales and zero points lie outside of its bytes");
  if (tensor.layout() != at::kStrided) {
    return Refuse(absl::StrCat("a tensor with ", tensor.is_mkldnn() ? "mkldnn" : "sparse", " layout"));
  }
  const c10::DispatchKeySet keys = tensor.key_set();
  if (keys.has(c10::DispatchKey::FuncTorchBatched) || keys.has(c10::DispatchKey::FuncTorchGradWrapper) ||
      keys.has(c10::DispatchKey::Functionalize)) {
    return Refuse("a tensor wrapped by a functorch transform (vmap, grad, functionalize)");
  }
  if (keys.has(c10::DispatchKey::Python)) {
    return Refuse("a tensor subclass that __torch_dispatch__ handles: its data lies in other tensors");
  }
  if (tensor.is_meta()) return Refuse("a meta tensor: it has no data");
  if (!tensor.has_storage()) return Refuse("a tensor without storage");
  const int number = static_cast<int>(tensor.scalar_type());
  if (FindDtype(static_cast<uint16_t>(number)) == nullptr) {
    return Refuse(absl::StrCat("a tensor of dtype ", NameOf(tensor.scalar_type())));
  }
  return absl::OkStatus();
}

at::Tensor PlainTensor(const at::Tensor& tensor) {
  if (IsPlainTensor(tensor)) return tensor;
  c10::NoGradGuard no_grad;
  if (tensor._is_zerotensor()) return at::zeros(tensor.sizes(), tensor.options().device(at::kCPU));
  return ContiguousOnCpu(tensor.detach().resolve_conj().resolve_neg());
}

bool IsPlainTensor(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor();
}

std::span<const std::byte> BytesOf(const at::Tensor& plain) {
  if (plain.numel() == 0) return {};
  return {static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()};
}

std::span<std::byte> WritableBytesOf(const at::Tensor& plain) {
  if (plain.numel() == 0) return {};
  return {static_cast<std::byte*>(plain.mutable_data_ptr()), plain.nbytes()};
}

void NoteWritten(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

void DescribeTensor(const at::Tensor& plain, PutItem* item) {
  item->kind = ObjectKind::kTensor;
  item->dtype = static_cast<uint16_t>(plain.scalar_type());
  item->shape.assign(plain.sizes().begin(), plain.sizes().end());
  item->bytes = BytesOf(plain);
}

absl::Status CheckTensorObject(const Object& object) {
  const uint16_t dtype = object.record().dtype;
  const bool is_tensor = object.record().kind == ObjectKind::kTensor;
  if (is_tensor && TorchHasDtype(dtype)) return absl::OkStatus();
  const std::string name = EscapeForTerminal(object.name());
  if (!is_tensor) return absl::UnimplementedError(absl::StrCat("\"", name, "\" is bytes, not a tensor"));
  const Dtype* known = FindDtype(dtype);
  const std::string dtype_name = known != nullptr ? known->name : absl::StrCat("number ", dtype);
  return absl::UnimplementedError(absl::StrCat("\"", name, "\" has dtype ", dtype_name,
                                               ", which this torch does not have; get it with as_bytes=True"));
}

absl::Status CheckOut(const Object& object, std::span<const uint64_t> shape, const at::Tensor& out) {
  TS_RETURN_IF_ERROR(CheckTensorObject(object));
  TS_RETURN_IF_ERROR(CheckStorable(out));
  const uint16_t dtype = object.record().dtype;
  const std::vector<uint64_t> out_shape(out.sizes().begin(), out.sizes().end());
  if (static_cast<int>(out.scalar_type()) == dtype && std::ranges::equal(out_shape, shape)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "out= for \"", EscapeForTerminal(object.name()), "\" is ", NameOf(out.scalar_type()), ShapeText(out_shape),
      " but what is stored is ", FindDtype(dtype)->name, ShapeText(shape), "; values are never converted"));
}

absl::StatusOr<std::vector<at::Tensor>> ReadTensors(Store& store, std::span<const Object> objects,
                                                    const ReadOptions& options) {
  ResultTensors results(*store.memory_pool());
  std::vector<at::Tensor> tensors;
  tensors.reserve(objects.size());
  std::vector<ReadRequest> requests;
  requests.reserve(objects.size());
  for (const Object& object : objects) {
    TS_RETURN_IF_ERROR(CheckTensorObject(object));
    TS_ASSIGN_OR_RETURN(at::Tensor tensor, results.New(object.record().dtype, object.record().shape));
    requests.push_back({.object = &object, .offset = 0, .to = WritableBytesOf(tensor)});
    tensors.push_back(std::move(tensor));
  }
  const std::shared_ptr<void> faults = results.FaultInBehind();
  TS_RETURN_IF_ERROR(store.Read(requests, options));
  return tensors;
}

absl::Status ReadInto(Store& store, std::span<const Object> objects, std::span<const at::Tensor> out,
                      const ReadOptions& options) {
  return ReadInto(*store.memory_pool(), objects, out,
                  [&](std::span<const ReadRequest> requests) { return store.Read(requests, options); });
}

absl::Status ReadInto(MemoryPool& pool, std::span<const Object> objects, std::span<const at::Tensor> out,
                      const ReadFunction& read) {
  if (objects.size() != out.size()) {
    return absl::InvalidArgumentError(absl::StrCat("out= has ", out.size(), " tensors for ", objects.size(), " names"));
  }
  for (size_t i = 0; i < objects.size(); ++i)
    TS_RETURN_IF_ERROR(CheckOut(objects[i], objects[i].record().shape, out[i]));

  ResultTensors results(pool);
  std::vector<ReadRequest> requests;
  std::vector<at::Tensor> temporaries(objects.size());  // defined where `out` cannot be read into directly
  for (size_t i = 0; i < objects.size(); ++i) {
    if (!IsPlainTensor(out[i])) {
      const ObjectRecord& record = objects[i].record();
      TS_ASSIGN_OR_RETURN(temporaries[i], results.New(record.dtype, record.shape));
    }
    const at::Tensor& target = temporaries[i].defined() ? temporaries[i] : out[i];
    requests.push_back({.object = &objects[i], .offset = 0, .to = WritableBytesOf(target)});
  }
  const absl::Status status = read(requests);
  for (size_t i = 0; i < objects.size(); ++i) {
    if (!temporaries[i].defined()) {
      NoteWritten(out[i]);
    } else if (status.ok()) {
      CopyValues(temporaries[i], out[i]);
    }
  }
  return status;
}

absl::StatusOr<CommitResult> PutTensor(Store& store, const std::string& name, const at::Tensor& tensor) {
  TS_RETURN_IF_ERROR(Annotate(CheckStorable(tensor), absl::StrCat("\"", EscapeForTerminal(name), "\"")));
  const at::Tensor plain = PlainTensor(tensor);
  PutItem item;
  item.name = name;
  DescribeTensor(plain, &item);
  return store.Put(item);
}

absl::StatusOr<at::Tensor> GetTensor(Store& store, const std::string& name) {
  TS_ASSIGN_OR_RETURN(const Object object, store.Find(name));
  TS_ASSIGN_OR_RETURN(std::vector<at::Tensor> tensors, ReadTensors(store, std::span(&object, 1), {}));
  return std::move(tensors.front());
}

void CopyValues(const at::Tensor& from, const at::Tensor& to) {
  c10::NoGradGuard no_grad;
  const at::Tensor target = to.detach();
  if (IsOpaque(from.scalar_type())) {
    const at::ScalarType type = CopyTypeOf(from.scalar_type());
    target.view(type).copy_(from.view(type));
  } else {
    target.copy_(from);
  }
}

}  // namespace tensorshelf
