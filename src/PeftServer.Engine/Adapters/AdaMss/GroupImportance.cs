using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdaMss;

/// <summary>How much a group's A and B matter while they train, and where they stay once they have stopped.</summary>
internal sealed class GroupImportance(Weight a, Weight b)
{
    private readonly Side[] _sides = [new Side(a), new Side(b)];
    private readonly Weight _trains = new(1); // 1 or 0, for a run that resumes

    public bool Trains { get; private set; } = true;

    public IEnumerable<Weight> Derived => Progress.Select(state => state.Weight).Concat(_sides.Select(side => side.Held));

    public IEnumerable<(string Name, Weight Weight)> Progress =>
    [
        ("trains", _trains), .. _sides.SelectMany((side, i) => new[] { ($"{i}.importance", side.Importance), ($"{i}.uncertainty", side.Uncertainty) }),
    ];

    /// <summary>Begins to keep how much the group matters.</summary>
    public void Track()
    {
        Trains = true;
        _trains.Ones(a.Value.device);
        Reset();
    }

    /// <summary>Forgets what it knew.</summary>
    public void Reset()
    {
        foreach (var side in _sides)
        {
            side.Importance.Zeros(a.Value.device);
            side.Uncertainty.Zeros(a.Value.device);
        }
    }

    /// <summary>Takes in what this step says: the weights after it, the gradients from before it.</summary>
    public void Observe(double importanceBeta, double uncertaintyBeta)
    {
        foreach (var side in _sides)
        {
            var now = side.Own.Value.mul(side.Own.Value.grad!).abs();
            side.Uncertainty.Value.Scale(uncertaintyBeta).Add(now.Minus(side.Importance.Value).abs(), 1 - uncertaintyBeta); // from the average before this step
            side.Importance.Value.Scale(importanceBeta).Add(now, 1 - importanceBeta);
        }
    }

    /// <summary>How much the group matters: a scalar.</summary>
    public Tensor Score() => _sides.Select(side => side.Importance.Value.mul(side.Uncertainty.Value).mean()).Aggregate((sum, score) => sum.Plus(score));

    /// <summary>Has the group stay as it is from here on.</summary>
    public void Stop()
    {
        Trains = false;
        _trains.Zeros(a.Value.device);
        foreach (var side in _sides)
        {
            side.Own.Value.requires_grad = false;
            side.Held.Set(side.Own.Value.detach().clone());
        }
    }

    /// <summary>Takes back what the optimizer's decay and momentum did to a group that has stopped.</summary>
    public void Hold()
    {
        foreach (var side in _sides)
        {
            side.Own.Value.copy_(side.Held.Value);
        }
    }

    /// <summary>Goes on from a checkpoint's <see cref="Progress"/>.</summary>
    public void Resume()
    {
        if (_trains.Value.item<float>() == 0)
        {
            Stop();
        }
    }

    private sealed class Side(Weight own)
    {
        public Weight Own { get; } = own;

        public Weight Importance { get; } = new([.. own.Shape]);

        public Weight Uncertainty { get; } = new([.. own.Shape]);

        public Weight Held { get; } = new([.. own.Shape]);
    }
}
