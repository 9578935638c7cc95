namespace PeftServer.Engine.Models;

/// <summary>
/// Gradient checkpointing (<see href="https://arxiv.org/abs/1604.06174"/>) for tensor code under autograd: of a layer only its input stays, and on the way back the
/// layer runs again for its gradients. It belongs to a thread, as grad mode does, from <see cref="Begin"/> until it is disposed of; without one everything here does what
/// stands in its place otherwise. Dropout draws the same numbers again, so the gradients are those of a run that keeps its activations.
/// </summary>
internal sealed class GradientCheckpoints : IDisposable
{
    [ThreadStatic]
    private static GradientCheckpoints? s_current;

    private readonly List<Segment> _segments = [];
    private readonly HashSet<IDisposable> _kept = new(ReferenceEqualityComparer.Instance);
    private Tensor? _last;
    private bool _isGoingBack;

    private GradientCheckpoints()
    {
    }

    /// <summary>Whether layers of this thread run again for their gradients.</summary>
    public static bool AreOn => s_current is not null;

    /// <summary>Whether a layer runs for the second time: what it notes beside its output was noted the first time.</summary>
    public static bool RunsAgain => s_current is { _isGoingBack: true };

    /// <summary>Starts for this thread where it is <paramref name="wanted"/>; dispose of it behind the backward pass.</summary>
    public static GradientCheckpoints? Begin(bool wanted) => !wanted ? null
        : s_current is null ? s_current = new GradientCheckpoints()
        : throw new InvalidOperationException("This thread has gradient checkpoints already.");

    /// <summary>
    /// One layer of a stack: <paramref name="layer"/> of x [n, width]. What it uses beside x and the batch goes into
    /// <paramref name="held"/>: it is there until the way back is over.
    /// </summary>
    public static Tensor Layer(Tensor x, ForwardBatch batch, Func<Tensor, Tensor> layer, params ReadOnlySpan<IDisposable?> held)
    {
        if (s_current is not { _isGoingBack: false } checkpoints || !is_grad_enabled())
        {
            return layer(x);
        }

        using var scope = NewDisposeScope();

        // Each graph is gone through once: x may have one that others lead into as well.
        x = ReferenceEquals(x, checkpoints._last) ? x : Cut(x);
        var draws = batch.Dropout?.get_state();
        var y = layer(x);
        if (!y.requires_grad)
        {
            return y.MoveToOuterDisposeScope(); // nothing below or in it trains, so nothing is kept
        }

        var segment = new Segment(x.alias().DetachFromDisposeScope(), layer, batch.Dropout, draws?.DetachFromDisposeScope(), Leaf(y));
        checkpoints._segments.Add(segment);
        checkpoints.Keep(batch);
        foreach (var source in batch.Sources)
        {
            checkpoints.Keep(source);
        }

        foreach (var one in held)
        {
            checkpoints.Keep(one);
        }

        return checkpoints._last = segment.Leaves[0].alias().MoveToOuterDisposeScope();
    }

    /// <summary>
    /// <paramref name="made"/> as several layers may use it: they gather its gradient, which then goes once through what made it. The caller still disposes of both.
    /// </summary>
    public static Tensor Cut(Tensor made) => Cut([made])[0];

    /// <summary>The same for tensors that were made together.</summary>
    public static IReadOnlyList<Tensor> Cut(IReadOnlyList<Tensor> made)
    {
        if (s_current is not { _isGoingBack: false } checkpoints || !is_grad_enabled() || !made.Any(one => one.requires_grad))
        {
            return made;
        }

        var segment = new Segment([.. made.Select(one => one.alias().DetachFromDisposeScope())], [.. made.Select(Leaf)]);
        checkpoints._segments.Add(segment);
        return [.. segment.Leaves.Select(leaf => leaf.alias())];
    }

    /// <summary>Adds the gradients of <paramref name="loss"/>, a scalar, to those of the trained weights.</summary>
    public static void Backward(Tensor loss)
    {
        loss.backward();
        s_current?.GoBack();
    }

    /// <summary>Whether <paramref name="held"/> is still needed: it is disposed of later.</summary>
    public static bool Keeps(IDisposable held) => s_current?._kept.Contains(held) is true;

    public void Dispose()
    {
        s_current = null;
        foreach (var segment in _segments)
        {
            segment.Dispose();
        }

        foreach (var held in _kept)
        {
            held.Dispose();
        }
    }

    private void Keep(IDisposable? held)
    {
        if (held is not null && _kept.Add(held) && held is Tensor tensor)
        {
            tensor.DetachFromDisposeScope();
        }
    }

    private void GoBack()
    {
        _isGoingBack = true;
        var draws = _segments.Select(segment => segment.Dropout).OfType<Generator>().Distinct().Select(generator => (Generator: generator, State: generator.get_state())).ToList();
        while (_segments is [.., var segment])
        {
            using var scope = NewDisposeScope();
            segment.Backward();
            segment.Dispose();
            _segments.RemoveAt(_segments.Count - 1);
        }

        foreach (var (generator, state) in draws)
        {
            generator.set_state(state);
            state.Dispose();
        }
    }

    private static Tensor Leaf(Tensor value)
    {
        using var scope = NewDisposeScope();
        return value.detach().requires_grad_(true).DetachFromDisposeScope();
    }

    /// <summary>A piece of the graph, by its ends: what made them, and the leaves from which the rest of it went on.</summary>
    private sealed class Segment : IDisposable
    {
        private readonly IReadOnlyList<Tensor> _from;
        private readonly Func<Tensor, Tensor>? _layer;
        private readonly Tensor? _draws;

        /// <summary>A graph that was kept.</summary>
        public Segment(IReadOnlyList<Tensor> made, IReadOnlyList<Tensor> leaves) => (_from, Leaves) = (made, leaves);

        /// <summary>One that is made again.</summary>
        public Segment(Tensor x, Func<Tensor, Tensor> layer, Generator? dropout, Tensor? draws, Tensor leaf) =>
            (_from, _layer, Dropout, _draws, Leaves) = ([x], layer, dropout, draws, [leaf]);

        public IReadOnlyList<Tensor> Leaves { get; }

        public Generator? Dropout { get; }

        public void Backward()
        {
            var reached = Leaves.Select((leaf, i) => (Index: i, Gradient: leaf.grad)).Where(end => end.Gradient is not null).ToList();
            if (reached.Count == 0)
            {
                return;
            }

            if (_draws is not null)
            {
                Dropout!.set_state(_draws);
            }

            var ends = _layer is null ? reached.Select(end => (Made: _from[end.Index], end.Gradient)) : [(Made: _layer(_from[0]), reached[0].Gradient)];
            var trained = ends.Where(end => end.Made.requires_grad).ToList();
            autograd.backward([.. trained.Select(end => end.Made)], [.. trained.Select(end => end.Gradient!)]);
        }

        public void Dispose()
        {
            foreach (var tensor in _from.Concat(Leaves))
            {
                tensor.Dispose();
            }

            _draws?.Dispose();
        }
    }
}
