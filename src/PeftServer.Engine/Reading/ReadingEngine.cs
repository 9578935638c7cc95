using PeftServer.Engine.Adapters;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Reading;

/// <summary>
/// Reads many texts at once with one base model under one head: classes of texts or of tokens, answers' borders, vectors. One thread owns
/// the model and every tensor; texts come to it through a channel, and those under one adapter go through the model together.
/// </summary>
public sealed class ReadingEngine : IDisposable
{
    /// <summary>Adapters held in memory beside the base.</summary>
    private const int AdapterCapacity = 64;

    private readonly ReadingEngineOptions _options;
    private readonly ModelThread<Arrival, ReadingLimits> _thread;

    /// <summary>Starts loading; <see cref="Loaded"/> tells when texts are read.</summary>
    public ReadingEngine(ReadingEngineOptions options)
    {
        _options = options;
        _thread = new ModelThread<Arrival, ReadingLimits>(nameof(ReadingEngine), Work, (arrival, why) => arrival.Result.TrySetException(why));
        _thread.Start();
    }

    /// <summary>Completes when the model is loaded, with what it can take; fails with why it is not.</summary>
    public Task<ReadingLimits> Loaded => _thread.Loaded;

    /// <summary>Texts that are being read or wait to be.</summary>
    public int Load => _thread.Load;

    /// <summary>
    /// Reads one text. Fails with <see cref="NotSupportedException"/> when it is too long, and with what loading an adapter throws.
    /// Cancelling takes a text back that has not been read yet.
    /// </summary>
    public Task<Reading> ReadAsync(ReadingRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfZero(request.Ids.Length);
        var arrival = new Arrival(request, new TaskCompletionSource<Reading>(TaskCreationOptions.RunContinuationsAsynchronously), cancellationToken);
        _thread.Send(arrival);
        return arrival.Result.Task;
    }

    public void Dispose() => _thread.Dispose();

    private void Work()
    {
        var device = Devices.Parse(_options.Device);
        using var frozen = no_grad();
        using var reader = ReadingModel.Load(_options, device, Devices.DefaultDtype(device, _options.Bf16));
        using var adapters = new LoadedAdapters(reader.Model, AdapterCapacity);
        _thread.Ready(reader.Limits);
        while (_thread.Wait())
        {
            foreach (var group in Take().GroupBy(arrival => arrival.Request.Adapter?.Digest))
            {
                Read(reader, adapters, [.. group]);
            }
        }
    }

    /// <summary>The texts of a step: what has come, within the budget and one at least.</summary>
    private List<Arrival> Take()
    {
        var (taken, tokens) = (new List<Arrival>(), 0);
        while (taken.Count < _options.MaxSequences && _thread.TryPeek(out var next)
            && (taken.Count == 0 || tokens + next.Request.Ids.Length <= _options.MaxBatchTokens) && _thread.TryTake(out next))
        {
            if (next.Cancellation.IsCancellationRequested)
            {
                End(next, source => source.TrySetCanceled(next.Cancellation));
                continue;
            }

            tokens += next.Request.Ids.Length;
            taken.Add(next);
        }

        return taken;
    }

    private void Read(ReadingModel reader, LoadedAdapters adapters, IReadOnlyList<Arrival> group)
    {
        try
        {
            var adapter = group[0].Request.Adapter is { } reference ? adapters.Get(reference, _ => false) : null;
            var fitting = new List<Arrival>();
            foreach (var arrival in group)
            {
                if (Fault(reader, adapter, arrival.Request) is { } fault)
                {
                    End(arrival, source => source.TrySetException(fault));
                }
                else
                {
                    fitting.Add(arrival);
                }
            }

            var readings = fitting.Count == 0 ? [] : reader.Read([.. fitting.Select(arrival => arrival.Request)], adapter is null ? [] : [adapter]);
            for (var i = 0; i < readings.Count; i++)
            {
                var reading = readings[i];
                End(fitting[i], source => source.TrySetResult(reading));
            }
        }
        catch (Exception e)
        {
            foreach (var arrival in group.Where(arrival => !arrival.Result.Task.IsCompleted))
            {
                End(arrival, source => source.TrySetException(e));
            }
        }
    }

    private static Exception? Fault(ReadingModel reader, Adapter? adapter, ReadingRequest request)
    {
        var most = reader.Limits.MaxLength - (adapter?.VirtualTokens ?? 0);
        return request.Ids.Length > most ? new NotSupportedException($"The model reads {most} tokens; the text has {request.Ids.Length}.")
            : IKnowsTasks.Fault(adapter?.Config, request.Task) is { } fault ? new AdapterException("task_id", fault)
            : null;
    }

    private void End(Arrival arrival, Action<TaskCompletionSource<Reading>> how)
    {
        _thread.Done(arrival);
        how(arrival.Result);
    }

    private sealed record Arrival(ReadingRequest Request, TaskCompletionSource<Reading> Result, CancellationToken Cancellation);
}

/// <summary>What a <see cref="ReadingEngine"/> runs, and within what bounds.</summary>
public sealed record ReadingEngineOptions
{
    /// <summary>Folder of the base model.</summary>
    public required string ModelFolder { get; init; }

    /// <summary>What stands on top of it: one that classifies, or <see cref="ModelHead.Features"/> for vectors.</summary>
    public required ModelHead Head { get; init; }

    /// <summary>The classes, where they are not those of the model's own head.</summary>
    public IReadOnlyList<string>? Labels { get; init; }

    /// <summary>auto, cpu or cuda:N.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>bfloat16 base; absent: on GPUs only.</summary>
    public bool? Bf16 { get; init; }

    /// <summary>Where engines of the same folder find what the others have loaded of it; null: nowhere.</summary>
    public SharedTensors? Shared { get; init; }

    /// <summary>Texts read at once.</summary>
    public int MaxSequences { get; init; } = 64;

    /// <summary>Tokens that one step feeds at most, unless a single text has more.</summary>
    public int MaxBatchTokens { get; init; } = 8192;
}
