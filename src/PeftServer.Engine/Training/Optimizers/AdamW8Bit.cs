using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// AdamW whose moments are kept in 8 bits (<see href="https://arxiv.org/abs/2110.02861"/>), as bitsandbytes' block-wise optimizer: 256 values share the largest
/// magnitude among them, and each is an index into a table whose steps are finer near zero. Weights of fewer than 4096 values keep float32 moments.
/// </summary>
public sealed class AdamW8Bit : Optimizer
{
    /// <summary>Values that share a scale, and values below which a weight's moments stay wide.</summary>
    public const int BlockSize = 256, LeastValues = 4096;

    private readonly (double Beta1, double Beta2) _betas;
    private readonly double _eps;
    private readonly Dictionary<string, (Tensor First, Tensor Second)> _wide = [];
    private readonly Dictionary<string, (Codes First, Codes Second)> _narrow = [];

    public AdamW8Bit(IReadOnlyList<ParameterGroup> groups, double beta1, double beta2, double eps)
        : base(groups)
    {
        (_betas, _eps) = ((beta1, beta2), eps);
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var device = Parameters.device;
        var signed = Table(isSigned: true).to(device).DetachFromDisposeScope();
        var unsigned = Table(isSigned: false).to(device).DetachFromDisposeScope();
        (Signed, Unsigned) = (signed, unsigned);
        foreach (var weight in Groups.SelectMany(group => group.Weights))
        {
            if (weight.ElementCount < LeastValues)
            {
                _wide[weight.Path] = (Zeros("exp_avg", weight, ScalarType.Float32, weight.ElementCount), Zeros("exp_avg_sq", weight, ScalarType.Float32, weight.ElementCount));
                continue;
            }

            var blocks = (weight.ElementCount + BlockSize - 1) / BlockSize;
            _narrow[weight.Path] = (
                new Codes(signed, Zeros("exp_avg", weight, ScalarType.Byte, blocks, BlockSize), Zeros("exp_avg_max", weight, ScalarType.Float32, blocks, 1)),
                new Codes(unsigned, Zeros("exp_avg_sq", weight, ScalarType.Byte, blocks, BlockSize), Zeros("exp_avg_sq_max", weight, ScalarType.Float32, blocks, 1)));
        }
    }

    protected override bool IsPerWeight => true;

    private Tensor Signed { get; }

    private Tensor Unsigned { get; }

    /// <summary>The 256 values of a table, rising: seven powers of ten, each with twice as many steps as the one below, 0 and 1.</summary>
    public static Tensor Table(bool isSigned)
    {
        const int exponents = 7;
        var values = new List<float> { 0, 1 };
        for (var i = 0; i < exponents; i++)
        {
            var steps = 1 << (isSigned ? i : i + 1);
            var scale = Math.Pow(10, i - (exponents - 1));
            for (var step = 0; step < steps; step++)
            {
                var (low, high) = (0.1f + (0.9f * step / steps), 0.1f + (0.9f * (step + 1) / steps));
                var value = (float)(scale * ((low + high) / 2));
                values.Add(value);
                if (isSigned)
                {
                    values.Add(-value);
                }
            }
        }

        return tensor([.. values.Order()]);
    }

    public override void Dispose()
    {
        Signed.Dispose();
        Unsigned.Dispose();
        base.Dispose();
    }

    protected override void Update(ParameterSlice slice)
    {
        using var scope = NewDisposeScope();
        var (value, gradient) = (slice.Value.view(-1), slice.Gradient.view(-1)); // [n]
        if (_wide.TryGetValue(slice.Name, out var wide))
        {
            Step(slice, value, wide.First.Scale(_betas.Beta1).Add(gradient, 1 - _betas.Beta1), wide.Second.Scale(_betas.Beta2).Add(gradient.square(), 1 - _betas.Beta2));
            return;
        }

        // Blocks do not know of each other: so many at a time that what is made of them on the way stays small.
        const long Together = UpdatedAtOnce / BlockSize;
        var (first, second) = _narrow[slice.Name];
        for (var start = 0L; start < first.Indices.size(0); start += Together)
        {
            using var inner = NewDisposeScope();
            var count = Math.Min(Together, first.Indices.size(0) - start);
            var places = Math.Min(count * BlockSize, value.numel() - (start * BlockSize));
            Update(slice, value.narrow(0, start * BlockSize, places), gradient.narrow(0, start * BlockSize, places), first.Part(start, count), second.Part(start, count));
        }
    }

    private void Update(ParameterSlice slice, Tensor value, Tensor gradient, Codes first, Codes second)
    {
        var blocks = zeros(first.Indices.shape, dtype: ScalarType.Float32, device: value.device); // [blocks, 256], the last one filled up with zeros
        blocks.flatten().narrow(0, 0, gradient.numel()).copy_(gradient);
        var mean = first.Values().Scale(_betas.Beta1).Add(blocks, 1 - _betas.Beta1);
        var square = second.Values().Scale(_betas.Beta2).Add(blocks.square(), 1 - _betas.Beta2);
        Step(slice, value, mean.flatten().narrow(0, 0, gradient.numel()), square.flatten().narrow(0, 0, gradient.numel()));
        first.Keep(mean);
        second.Keep(square);
    }

    /// <summary>Moves values, then decays them, in bitsandbytes' order.</summary>
    private void Step(ParameterSlice slice, Tensor value, Tensor mean, Tensor square)
    {
        var (correction1, correction2) = (1 - Math.Pow(_betas.Beta1, Steps), Math.Sqrt(1 - Math.Pow(_betas.Beta2, Steps)));
        value.Add(mean.div(square.sqrt().Plus(correction2 * _eps)), -slice.LearningRate * correction2 / correction1);
        if (slice.WeightDecay > 0)
        {
            value.Scale(1 - (slice.LearningRate * slice.WeightDecay));
        }
    }

    private Tensor Zeros(string name, Weight weight, ScalarType dtype, params long[] shape) => Keep($"{name}.{weight.Path}", zeros(shape, dtype: dtype, device: Parameters.device));

    /// <summary>Values as places in a table, and the scale of each block.</summary>
    /// <param name="Table">[256], rising.</param>
    /// <param name="Indices">[blocks, 256].</param>
    /// <param name="Largest">[blocks, 1].</param>
    private sealed record Codes(Tensor Table, Tensor Indices, Tensor Largest)
    {
        /// <summary>Some blocks of it: views.</summary>
        public Codes Part(long start, long count) => new(Table, Indices.narrow(0, start, count), Largest.narrow(0, start, count));

        public Tensor Values() => Table.index_select(0, Indices.flatten().to(ScalarType.Int64)).view(Indices.shape).mul(Largest);

        /// <summary>
        /// The nearest entry for each value, relative to the largest of its block. As bitsandbytes has it, what is below zero stays so: the first moment of a value keeps its sign
        /// however small it is beside the others of its block.
        /// </summary>
        public void Keep(Tensor values)
        {
            using var scope = NewDisposeScope();
            Largest.copy_(values.abs().amax([1], keepdim: true));
            var relative = values.div(Largest.AtLeast(1e-38));
            var between = Table.narrow(0, 0, 255).Plus(Table.narrow(0, 1, 255)).Times(0.5); // [255]
            var nearest = searchsorted(between, relative.contiguous(), false, false); // [blocks, 256]
            var lost = relative.lt(TensorArithmetic.Zero).logical_and_(Table.index_select(0, nearest.flatten()).view(nearest.shape).ge(TensorArithmetic.Zero));
            Indices.copy_(nearest.sub_(lost.to(ScalarType.Int64)));
        }
    }
}
