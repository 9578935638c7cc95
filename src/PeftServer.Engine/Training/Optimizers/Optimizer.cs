using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Training.Optimizers;

/// <summary>
/// Changes trained weights by their gradients. All weights are views of one flat float32 buffer, and so are their gradients: what works element
/// by element is a few calls a group, and the norm of all gradients one reduction.
/// </summary>
public abstract class Optimizer : IDisposable
{
    /// <summary>Elements that are updated at once where weights do not count: what the update makes on the way stays small beside the weights.</summary>
    public const long UpdatedAtOnce = 1 << 22;

    /// <summary>Elements that one sum of squares may run over in float32.</summary>
    private const long NormChunk = 4096;

    private readonly List<(Weight Weight, ParameterGroup Group, long Start)> _places = [];
    private readonly List<(string Name, Tensor Tensor)> _state = [];
    private readonly Tensor _gradients;
    private int _steps;

    /// <summary>Moves the weights of <paramref name="groups"/> (float32, on one device) into the flat buffer. They must require gradients by now.</summary>
    protected Optimizer(IReadOnlyList<ParameterGroup> groups)
    {
        Groups = [.. groups.Where(group => group.Weights.Count > 0)];
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var weights = Groups.SelectMany(group => group.Weights).ToList();
        Parameters = cat([.. weights.Select(weight => weight.Value.detach().to(ScalarType.Float32).flatten())]).DetachFromDisposeScope();
        _gradients = zeros_like(Parameters).DetachFromDisposeScope();
        StepCount = zeros([], dtype: ScalarType.Float32, device: Parameters.device).DetachFromDisposeScope();

        var at = 0L;
        foreach (var group in Groups)
        {
            foreach (var weight in group.Weights)
            {
                var shape = weight.Shape.ToArray();
                var view = Parameters.narrow(0, at, weight.ElementCount).view(shape).detach();
                view.requires_grad = true;
                weight.Set(view);
                weight.Value.grad = _gradients.narrow(0, at, weight.ElementCount).view(shape); // backward adds to it in place
                _places.Add((weight, group, at));
                at += weight.ElementCount;
            }
        }
    }

    /// <summary>All trained weights, one after another.</summary>
    public Tensor Parameters { get; }

    /// <summary>Steps taken, as a float32 scalar on the device.</summary>
    public Tensor StepCount { get; }

    /// <summary>Everything a run needs to go on from here, by name.</summary>
    public IEnumerable<(string Name, Tensor Tensor)> State => [("parameters", Parameters), ("step", StepCount), .. _state];

    protected IReadOnlyList<ParameterGroup> Groups { get; }

    /// <summary>Steps taken, the present one included.</summary>
    protected int Steps => _steps;

    /// <summary>Whether an update needs each weight by itself, in its shape, rather than the elements of a group in a row.</summary>
    protected virtual bool IsPerWeight => false;

    /// <summary>
    /// Scales all gradients so that their norm is at most <paramref name="maxNorm"/> (0: no clipping); gives the norm before, as a
    /// scalar on the device.
    /// </summary>
    public Tensor ClipGradients(double maxNorm)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var norm = GradientNorm();
        if (maxNorm > 0)
        {
            using var limit = maxNorm.ToScalar();
            using var little = 1e-6.ToScalar();
            var factor = full_like(norm, limit).div(norm.add(little)).clamp_max(TensorArithmetic.One);
            _gradients.mul_(factor);
        }

        return norm.MoveToOuterDisposeScope();
    }

    // The norm of norms of chunks: on a CPU one sum over millions of squares stands still where a square is less than half a unit of the sum's last place.
    // With 2.4 million gradients that made the norm 0.03% too small, and clipping let so much more through.
    private Tensor GradientNorm()
    {
        using var scope = NewDisposeScope();
        var chunked = _gradients.numel() / NormChunk * NormChunk;
        var chunks = _gradients.narrow(0, 0, chunked).view(chunked / NormChunk, NormChunk).norm(dim: 1); // [chunks]
        var rest = _gradients.narrow(0, chunked, _gradients.numel() - chunked).norm().reshape(1); // [1]
        return cat([chunks, rest]).norm().MoveToOuterDisposeScope();
    }

    /// <summary>One update at <paramref name="learningRate"/>.</summary>
    public void Step(double learningRate)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        _steps++;
        StepCount.add_(TensorArithmetic.One);
        foreach (var slice in IsPerWeight ? WeightSlices(learningRate) : GroupSlices(learningRate))
        {
            using var inner = NewDisposeScope(); // what one weight's update takes goes before the next one's comes
            Update(slice);
        }
    }

    public void ZeroGrad() => _gradients.zero_();

    /// <summary>Goes on from what <see cref="State"/> gave; <paramref name="saved"/> finds a tensor by its name.</summary>
    public void Restore(Func<string, Tensor> saved)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        foreach (var (name, tensor) in State)
        {
            tensor.copy_(saved(name));
        }

        _steps = (int)StepCount.item<float>();
    }

    public virtual void Dispose()
    {
        _gradients.Dispose();
        foreach (var (_, tensor) in State)
        {
            tensor.Dispose();
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Changes the weights of <paramref name="slice"/> in place.</summary>
    protected abstract void Update(ParameterSlice slice);

    /// <summary>A state as wide as all weights, zero at the start.</summary>
    protected Tensor FlatState(string name) => Keep(name, zeros_like(Parameters));

    /// <summary>Another state; it is saved with a checkpoint.</summary>
    protected Tensor Keep(string name, Tensor tensor)
    {
        _state.Add((name, tensor.DetachFromDisposeScope()));
        return tensor;
    }

    private IEnumerable<ParameterSlice> GroupSlices(double learningRate)
    {
        var start = 0L;
        foreach (var group in Groups)
        {
            for (var left = group.Weights.Sum(weight => weight.ElementCount); left > 0;)
            {
                var count = Math.Min(left, UpdatedAtOnce);
                yield return Slice("", group, start, [count], learningRate);
                (start, left) = (start + count, left - count);
            }
        }
    }

    private IEnumerable<ParameterSlice> WeightSlices(double learningRate) =>
        _places.Select(place => Slice(place.Weight.Path, place.Group, place.Start, [.. place.Weight.Shape], learningRate));

    private ParameterSlice Slice(string name, ParameterGroup group, long start, long[] shape, double learningRate) =>
        new(name, start, shape, learningRate * group.LearningRateScale, group.WeightDecay) { Value = Cut(Parameters, start, shape), Gradient = Cut(_gradients, start, shape) };

    private static Tensor Cut(Tensor flat, long start, long[] shape) => flat.narrow(0, start, shape.Aggregate(1L, (a, b) => a * b)).view(shape);

    /// <summary>Weights that are updated together, as one vector or as the weight itself, and how.</summary>
    protected readonly record struct ParameterSlice(string Name, long Start, long[] Shape, double LearningRate, double WeightDecay)
    {
        public required Tensor Value { get; init; }

        public required Tensor Gradient { get; init; }

        /// <summary>The same place in a flat state.</summary>
        public Tensor Of(Tensor state) => Cut(state, Start, Shape);
    }
}

/// <summary>Weights with settings of their own: a factor of the learning rate, and a decay.</summary>
public sealed record ParameterGroup(IReadOnlyList<Weight> Weights, double LearningRateScale, double WeightDecay);
