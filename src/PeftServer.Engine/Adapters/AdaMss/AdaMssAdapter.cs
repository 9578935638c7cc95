using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdaMss;

/// <summary>AdaMSS with adaptive subspace allocation: after a step it decides which groups go on training, over all modules together.</summary>
internal sealed class AdaMssAdapter(AdaMssConfig config, PretrainedModel model) : TargetedAdapter(config, model)
{
    private List<GroupImportance> Groups => [.. Parts.Select(entry => entry.Part).OfType<AdaMssProjection>().SelectMany(part => part.Importance)];

    public override void BeginTraining(int totalSteps) => Groups.ForEach(group => group.Track());

    public override void SetTraining(bool training)
    {
        base.SetTraining(training);
        Groups.Where(group => !group.Trains).ToList().ForEach(group => group.Stop());
    }

    public override void AfterStep(int step)
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        var groups = Groups;
        groups.Where(group => !group.Trains).ToList().ForEach(group => group.Hold());
        if (step < config.InitWarmup || step > config.FinalWarmup)
        {
            return;
        }

        var training = groups.FindAll(group => group.Trains);
        training.ForEach(group => group.Observe(config.AsaImportanceBeta, config.AsaUncertaintyBeta));
        if (step % config.MaskInterval == 0)
        {
            StopLeast(training, Target(step, groups.Count));
            training.ForEach(group => group.Reset());
        }
    }

    /// <summary>How many of <paramref name="all"/> groups the schedule wants at this step.</summary>
    private int Target(int step, int all)
    {
        var left = 1 - ((double)(step - config.InitWarmup) / (config.FinalWarmup - config.InitWarmup));
        return (int)(config.AsaTargetSubspaces + ((all - config.AsaTargetSubspaces) * Math.Pow(left, config.AsaScheduleExponent)));
    }

    /// <summary>Lets go on what matters more than the group in place <paramref name="target"/>, as PEFT does: that one itself stops too.</summary>
    private static void StopLeast(List<GroupImportance> training, int target)
    {
        if (target >= training.Count)
        {
            return;
        }

        var scores = stack([.. training.Select(group => group.Score())]).data<float>().ToArray(); // [groups], to the CPU
        var threshold = scores.OrderDescending().ElementAt(target - 1);
        foreach (var (group, _) in training.Zip(scores).Where(entry => !(entry.Second > threshold)))
        {
            group.Stop();
        }
    }
}
