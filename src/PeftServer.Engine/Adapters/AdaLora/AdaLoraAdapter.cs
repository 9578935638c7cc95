using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Adapters.AdaLora;

/// <summary>AdaLoRA on its sites: after each step it decides which ranks stay on, over all sites together.</summary>
internal sealed class AdaLoraAdapter : TargetedAdapter
{
    private readonly AdaLoraConfig _config;
    private int _totalSteps;
    private bool _hasPattern;

    public AdaLoraAdapter(AdaLoraConfig config, PretrainedModel model)
        : base(config, model)
    {
        _config = config;
        _hasPattern = config.RankPattern is not null;
    }

    private IEnumerable<(Site Site, AdaLoraProjection Part)> Projections =>
        Parts.Where(entry => entry.Part is AdaLoraProjection).Select(entry => (entry.Site, (AdaLoraProjection)entry.Part));

    /// <summary>PEFT has a parameter in each module that counts its ranks.</summary>
    protected override long UnsavedCount => Projections.Count();

    internal override AdapterConfig SavedConfig => !_hasPattern ? _config : _config with
    {
        RankPattern = _config.RankPattern ?? Projections.ToDictionary(entry => $"{entry.Site.Path}.lora_E", entry => (IReadOnlyList<bool>)entry.Part.Pattern()),
    };

    internal override IEnumerable<(string Key, Tensor Value)> SavedState
    {
        get
        {
            var cut = Projections.SelectMany(entry => entry.Part.Cut().Select(state => (Key: KeyOf(entry.Site, state.Name), state.Value))).ToDictionary(entry => entry.Key, entry => entry.Value);
            return State.Select(entry => (entry.Key, cut.GetValueOrDefault(entry.Key) ?? entry.Weight.Value));
        }
    }

    /// <summary>The weighted mean of how far A and B are from orthonormal.</summary>
    public override Tensor? Regularization()
    {
        using var scope = NewDisposeScope();
        var distances = Projections
            .SelectMany(entry => new[] { LowRank.DistanceFromUnit(entry.Part.A.mm(entry.Part.A.t())), LowRank.DistanceFromUnit(entry.Part.B.t().mm(entry.Part.B)) }).ToList();
        return distances.Aggregate((sum, distance) => sum.Plus(distance)).Times(_config.OrthRegWeight / distances.Count).MoveToOuterDisposeScope();
    }

    public override void BeginTraining(int totalSteps)
    {
        _totalSteps = _config.TotalStep ?? totalSteps;
        foreach (var (_, part) in Projections)
        {
            part.Track();
        }
    }

    public override void AfterStep(int step)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var last = _totalSteps - _config.Tfinal;
        if (step < last)
        {
            foreach (var (_, part) in Projections)
            {
                part.Observe();
            }

            if (step > _config.Tinit && step % _config.DeltaT == 0)
            {
                Choose(step, last);
            }
        }
        else if (step == last)
        {
            Choose(step, last);
            BeginTraining(_totalSteps);
        }
        else
        {
            _hasPattern = true;
            foreach (var (_, part) in Projections)
            {
                part.Mask();
            }
        }
    }

    /// <summary>Leaves on as many ranks as the schedule says, those that matter most.</summary>
    private void Choose(int step, int last)
    {
        var parts = Projections.Select(entry => entry.Part).ToList();
        var (first, target) = (parts.Sum(part => part.Rank), _config.TargetR * parts.Count);
        var left = step <= _config.Tinit ? 1 : 1 - ((double)(step - _config.Tinit) / (last - _config.Tinit));
        var budget = (int)(((first - target) * left * left * left) + target);
        if (budget >= first)
        {
            return;
        }

        var scores = parts.ConvertAll(part => part.Scores());
        var threshold = cat([.. scores], 0).kthvalue(first - budget, 0).values;
        foreach (var (part, score) in parts.Zip(scores))
        {
            part.Keep(score.gt(threshold));
            part.Mask();
        }

        _hasPattern = true;
    }
}
