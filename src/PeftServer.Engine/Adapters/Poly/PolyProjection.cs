using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Poly;

/// <summary>x A(t) B(t) / r at a projection, with the mix of the task t of each sequence.</summary>
internal sealed class PolyProjection : AdditiveSiteAdapter
{
    private const double Tiny = 1e-12;

    /// <summary>Draws stay this far from 0 and 1, float32's ε, as torch.distributions keeps them.</summary>
    private const double Edge = 1.1920928955078125e-07;

    private readonly PolyConfig _config;
    private readonly Weight poly_lora_A; // (splits, skills, in/splits, r)
    private readonly Weight poly_lora_B; // (splits, skills, r, out/splits)
    private readonly Weight module_logits; // (tasks, splits·skills)

    public PolyProjection(PolyConfig config, Projection site)
    {
        var (splits, skills) = (config.NSplits, config.NSkills);
        if (site is not Linear)
        {
            throw new AdapterException("target_modules", $"POLY is not supported on {site.Path}, a {site.GetType().Name}. It is on linear layers.");
        }

        if (site.InFeatures % splits != 0 || site.OutFeatures % splits != 0)
        {
            throw new AdapterException("n_splits", $"{splits} does not divide both sides of {site.Path} [{site.OutFeatures}, {site.InFeatures}].");
        }

        _config = config;
        poly_lora_A = new Weight(splits, skills, site.InFeatures / splits, config.R) { Trainable = true };
        poly_lora_B = new Weight(splits, skills, config.R, site.OutFeatures / splits) { Trainable = true };
        module_logits = new Weight(config.NTasks, (long)splits * skills) { Trainable = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State =>
        [("poly_router.module_logits", module_logits), (nameof(poly_lora_A), poly_lora_A), (nameof(poly_lora_B), poly_lora_B)];

    public override Tensor Delta(Tensor x, in SiteCall call)
    {
        using var scope = NewDisposeScope();
        var rows = Rows(x, call); // sequences of the run
        var mixes = Mixes([.. rows.Select(row => (long)row.Task)], call.Batch.Dropout).to(x.dtype); // [sequences, splits, skills]
        var (a, b, site) = (poly_lora_A.Value.to(x.dtype), poly_lora_B.Value.to(x.dtype), (Projection)call.Site);
        var outputs = rows.Select((row, i) =>
        {
            var mix = mixes.select(0, i).unsqueeze(1); // [splits, 1, skills]
            var down = mix.bmm(a.flatten(2, 3)).view(site.InFeatures, _config.R);
            var up = mix.bmm(b.flatten(2, 3)).view(_config.NSplits, _config.R, -1).transpose(0, 1).reshape(_config.R, site.OutFeatures);
            return x.narrow(0, row.Start, row.Count).mm(down).mm(up);
        }).ToArray();
        return cat(outputs, 0).Times(1.0 / _config.R).MoveToOuterDisposeScope(); // [n, out]
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        poly_lora_A.Set(Slices(poly_lora_A.Shape, generator).to(device));
        if (_config.InitWeights)
        {
            poly_lora_B.Zeros(device);
        }
        else
        {
            poly_lora_B.Set(Slices(poly_lora_B.Shape, generator).to(device));
        }

        module_logits.Uniform(1e-3, generator, device);
    }

    public override Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"POLY mixes its skills anew for each task, so it cannot be merged into the weight of {site.Path}. Serve it unmerged.");

    /// <summary>Each sequence of the run, counted from the run's first token.</summary>
    private List<(int Task, int Start, int Count)> Rows(Tensor x, in SiteCall call)
    {
        var (batch, run) = (call.Batch, call.Run);
        var rows = Enumerable.Range(0, batch.SequenceCount)
            .Where(i => batch.Starts[i] >= run.Start && batch.Starts[i] < run.Start + run.Count)
            .Select(i => (batch.TaskOf(i), batch.Starts[i] - run.Start, batch.Starts[i + 1] - batch.Starts[i])).ToList();
        foreach (var (task, _, _) in rows)
        {
            if (task < 0 || task >= _config.NTasks)
            {
                throw new AdapterException("task_id", $"There is no task {task}: the adapter has {_config.NTasks}, counted from 0.");
            }
        }

        if (x.size(0) == run.Count)
        {
            return rows;
        }

        // Some tokens were picked, as before the head of a language model: they need one task, or nobody knows whose they are.
        return rows.Select(row => row.Item1).Distinct().Count() == 1
            ? [(rows[0].Item1, 0, (int)x.size(0))]
            : throw new NotSupportedException($"POLY on {call.Site.Path} takes one task a batch. Leave it out of target_modules.");
    }

    /// <summary>
    /// The weights of the skills for each task, [tasks, splits, skills], adding up to one. In training they are drawn, near 0 or 1, by the
    /// relaxed Bernoulli distribution at temperature 1.
    /// </summary>
    private Tensor Mixes(long[] tasks, Generator? draws)
    {
        var logits = module_logits.Value.index_select(0, tensor(tasks, device: module_logits.Value.device)).view(-1, _config.NSplits, _config.NSkills);
        var share = logits.sigmoid();
        if (draws is not null)
        {
            var uniform = Inside(rand(logits.shape, generator: draws).to(logits.device));
            share = Logit(uniform).Plus(Logit(Inside(share))).sigmoid();
        }

        return share.div(share.sum(-1, keepdim: true).Plus(Tiny));
    }

    private static Tensor Inside(Tensor x) => x.AtLeast(Edge).AtMost(1 - Edge);

    private static Tensor Logit(Tensor x) => x.log().Minus(x.neg().log1p());

    /// <summary>As nn.Linear starts, for each skill and slice by itself: [splits, skills, d, r] from draws of [r, d].</summary>
    private static Tensor Slices(IReadOnlyList<long> shape, Generator generator)
    {
        using var scope = NewDisposeScope();
        var (splits, skills, d, r) = (shape[0], shape[1], shape[2], shape[3]);
        var bound = 1 / Math.Sqrt(d);
        var drawn = rand([skills, splits, r, d], generator: generator).Plus(-0.5).Times(2 * bound);
        return drawn.permute(1, 0, 3, 2).contiguous().MoveToOuterDisposeScope();
    }
}
