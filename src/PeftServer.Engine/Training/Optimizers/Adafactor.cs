using PeftServer.Engine.Native;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// Adafactor (<see href="https://arxiv.org/abs/1804.04235"/>) as in transformers: the second moment of a matrix is kept as the means of its rows and
/// columns, an update's root mean square is clipped for each tensor. What Trainer calls "adafactor" has neither a relative step nor a parameter scale.
/// </summary>
public sealed class Adafactor : Optimizer
{
    private readonly AdafactorSettings _settings;
    private readonly Dictionary<long, (Tensor Row, Tensor? Column)> _squares = []; // by where a weight starts
    private readonly Tensor? _moment;

    public Adafactor(IReadOnlyList<ParameterGroup> groups, AdafactorSettings settings)
        : base(groups)
    {
        _settings = settings;
        _moment = settings.Beta1 is not null ? FlatState("exp_avg") : null;
        var start = 0L;
        foreach (var weight in Groups.SelectMany(group => group.Weights))
        {
            var shape = weight.Shape.ToArray();
            _squares[start] = shape.Length < 2
                ? (Keep($"exp_avg_sq.{start}", zeros(shape, device: Parameters.device)), null)
                : (Keep($"exp_avg_sq_row.{start}", zeros(shape[..^1], device: Parameters.device)),
                    Keep($"exp_avg_sq_col.{start}", zeros([.. shape[..^2], shape[^1]], device: Parameters.device)));
            start += weight.ElementCount;
        }
    }

    protected override bool IsPerWeight => true;

    protected override void Update(ParameterSlice slice)
    {
        var rate = Rate(slice);
        var update = Normalised(slice);
        update = update.div(RootMeanSquare(update).Times(1 / _settings.ClipThreshold).AtLeast(1)).mul(rate);
        if (_moment is not null)
        {
            update = slice.Of(_moment).Scale(_settings.Beta1!.Value).Add(update, 1 - _settings.Beta1.Value);
        }

        if (slice.WeightDecay > 0)
        {
            slice.Value.add_(slice.Value.mul(rate.Times(slice.WeightDecay)), TensorArithmetic.MinusOne);
        }

        slice.Value.add_(update, TensorArithmetic.MinusOne);
    }

    private Tensor Rate(ParameterSlice slice)
    {
        var step = _settings.RelativeStep
            ? Math.Min(_settings.WarmupInit ? 1e-6 * Steps : 1e-2, 1 / Math.Sqrt(Steps))
            : slice.LearningRate;
        var scale = _settings.ScaleParameter ? RootMeanSquare(slice.Value).AtLeast(_settings.LeastScale) : ones([], device: slice.Value.device);
        return scale.Times(step);
    }

    /// <summary>The gradient over the root of its second moment.</summary>
    private Tensor Normalised(ParameterSlice slice)
    {
        var keep = 1 - Math.Pow(Steps, _settings.DecayRate);
        var square = slice.Gradient.square().Plus(_settings.LeastSquare);
        var (row, column) = _squares[slice.Start];
        if (column is null)
        {
            row.Scale(keep).Add(square, 1 - keep);
            return row.rsqrt().mul(slice.Gradient);
        }

        row.Scale(keep).Add(square.mean([-1]), 1 - keep);
        column.Scale(keep).Add(square.mean([-2]), 1 - keep);
        return row.div(row.mean([-1], keepdim: true)).rsqrt().unsqueeze(-1).mul(column.unsqueeze(-2).rsqrt()).mul(slice.Gradient);
    }

    private static Tensor RootMeanSquare(Tensor x) => x.square().mean().sqrt();
}

/// <summary>Adafactor's settings, under transformers' names; the defaults are those of its Trainer.</summary>
public sealed record AdafactorSettings
{
    /// <summary>ε₁: added to squares.</summary>
    public double LeastSquare { get; init; } = 1e-30;

    /// <summary>ε₂: the least scale of a parameter.</summary>
    public double LeastScale { get; init; } = 1e-3;

    /// <summary>Highest root mean square of an update.</summary>
    public double ClipThreshold { get; init; } = 1;

    /// <summary>Exponent by which the second moment forgets.</summary>
    public double DecayRate { get; init; } = -0.8;

    /// <summary>Decay of a first moment; absent: there is none.</summary>
    public double? Beta1 { get; init; }

    /// <summary>Steps are relative to the weights they change.</summary>
    public bool ScaleParameter { get; init; }

    /// <summary>The rate follows from the step; the learning rate is not used.</summary>
    public bool RelativeStep { get; init; }

    /// <summary>The relative step grows from 10⁻⁶.</summary>
    public bool WarmupInit { get; init; }
}
