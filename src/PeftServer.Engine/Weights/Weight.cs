using PeftServer.Engine.Quantization;

namespace PeftServer.Engine.Weights;

/// <summary>
/// A named tensor of a model or an adapter: path and shape from the start, the tensor once it is loaded or drawn. A model whose
/// weights have no tensors is a model as shapes alone. The tensor may be a view (of a mapped file, of a wider buffer): whoever
/// holds a weight may not assume that it is contiguous.
/// </summary>
public sealed class Weight(params long[] shape)
{
    private Tensor? _tensor;
    private PackedMatrix? _packed;

    /// <summary>Path in the model as Hugging Face names it, such as <c>model.layers.0.mlp.up_proj.weight</c>.</summary>
    public string Path { get; internal set; } = "";

    public IReadOnlyList<long> Shape { get; } = shape;

    public long ElementCount => Shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>Whether an optimizer may change it.</summary>
    public bool Trainable { get; internal set; }

    /// <summary>Whether PEFT registers it as a buffer: saved, but no parameter and so not counted.</summary>
    public bool IsBuffer { get; internal init; }

    /// <summary>Bytes of an element in a file: floats and small indices have four.</summary>
    public int ElementSize { get; internal init; } = 4;

    /// <summary>Whether only tensors of the base decide the true shape, and this one stands in for it on a model of shapes alone.</summary>
    public bool IsNominal { get; internal init; }

    public bool IsLoaded => _tensor is not null || _packed is not null;

    /// <summary>
    /// The tensor; where the weight is packed, a decoded copy that the caller's scope owns. Throws <see cref="InvalidOperationException"/>
    /// for a model that is shapes alone.
    /// </summary>
    public Tensor Value =>
        _tensor ?? _packed?.Decode() ?? throw new InvalidOperationException($"{Path} has a shape but no tensor: the model is not loaded.");

    /// <summary>The codes, where the weight is held in few bits.</summary>
    public PackedMatrix? Packed => _packed;

    /// <summary>Takes over <paramref name="tensor"/>, disposing of the one before. Throws when its shape differs.</summary>
    public void Set(Tensor tensor)
    {
        if (!tensor.shape.AsSpan().SequenceEqual(Shape.ToArray()))
        {
            throw new CheckpointException(
                $"'{Path}' has the shape [{string.Join(", ", tensor.shape)}], but the model needs [{string.Join(", ", Shape)}].");
        }

        if (!ReferenceEquals(tensor, _tensor))
        {
            Unload();
            _tensor = tensor.DetachFromDisposeScope();
        }
    }

    /// <summary>Takes over <paramref name="packed"/>, disposing of what was before.</summary>
    public void Set(PackedMatrix packed)
    {
        if (!Shape.SequenceEqual([packed.Rows, packed.Columns]))
        {
            throw new CheckpointException($"'{Path}' has the shape [{packed.Rows}, {packed.Columns}], but the model needs [{string.Join(", ", Shape)}].");
        }

        if (!ReferenceEquals(packed, _packed))
        {
            Unload();
            _packed = packed;
        }
    }

    public void Unload()
    {
        _tensor?.Dispose();
        _packed?.Dispose();
        (_tensor, _packed) = (null, null);
    }

    public override string ToString() => $"{Path} [{string.Join(", ", Shape)}]";
}
