using System.CommandLine;
using System.Text.Json;
using PeftServer.Cli.Processes;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training;

namespace PeftServer.Cli.Commands;

/// <summary><c>peftserver train</c></summary>
internal static class TrainCommand
{
    private const string Lesson = """
        Examples:
          peftserver train --spec run/spec.json
          peftserver train --spec run/spec.json --device cuda:0

        The worker runs this very command for a job. The folder of spec.json is the run folder: events.jsonl, checkpoints
        and at the end adapter/ (a PEFT checkpoint) appear there. The same command again resumes from the last checkpoint.

        A spec.json:
          {
            "model": "../models/tiny-llama", "model_name": "tiny-llama", "training_file": "train.jsonl",
            "peft": { "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM" },
            "training": { "num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 2e-3 }
          }
        """;

    public static Command Create()
    {
        var spec = new Option<FileInfo>("--spec") { Description = "The run: spec.json in its run folder.", HelpName = "FILE", Required = true };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda:N. Default: what the spec says.", HelpName = "DEVICE" };
        var torch = TorchOption();
        var supervised = new Option<bool>("--supervised") { Description = "Take 'cancel' and 'pause' as lines on standard input; stop when it ends." };
        var command = new DescribedCommand("train", "Run one training run in this process.", Lesson) { spec, device, torch, supervised };
        command.SetAction((result, stopping) =>
        {
            var control = new TrainerControl();
            using var onSignal = stopping.Register(() => control.Stop(StopRequest.Abandon));
            if (result.GetValue(supervised))
            {
                Posix.StartSession();
                new Thread(() => Obey(control)) { IsBackground = true, Name = "supervisor's pipe" }.Start();
            }

            var run = result.GetValue(spec)!;
            return OnOwnThread(() => Train(run, result.GetValue(device), result.GetValue(torch), control));
        });
        return command;
    }

    /// <summary>Where libtorch is, for the commands that use tensors.</summary>
    public static Option<string?> TorchOption() => new("--torch")
    {
        Description = "Folder of libtorch.so. Default: Torch:LibraryPath, else the one this program was built with.",
        HelpName = "DIR",
    };

    public static void LoadTorch(string? folder)
    {
        var chosen = folder ?? Settings.Read(new Dictionary<string, string?>())["Torch:LibraryPath"];
        TorchLoader.Load(string.IsNullOrEmpty(chosen) ? null : chosen);
    }

    /// <summary>Tensors stay on one thread, never across an await.</summary>
    public static Task<int> OnOwnThread(Func<int> work)
    {
        var done = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                done.SetResult(work());
            }
            catch (Exception e)
            {
                done.SetException(e);
            }
        })
        {
            Name = "tensors",
        };
        thread.Start();
        return done.Task;
    }

    private static int Train(FileInfo path, string? device, string? torch, TrainerControl control)
    {
        if (!path.Exists)
        {
            throw new CommandException($"--spec {path}: there is no such file.", ExitCode.Usage);
        }

        var folder = path.DirectoryName!;
        using var events = new EventLog(folder, TimeProvider.System, Print);
        try
        {
            var spec = TrainingSpec.Read(path.FullName);
            LoadTorch(torch);
            var outcome = new Trainer(device is null ? spec : spec with { Device = device }, folder, events, control, TimeProvider.System).Run();
            return outcome is TrainingOutcome.Succeeded or TrainingOutcome.Paused or TrainingOutcome.Cancelled ? ExitCode.Done : ExitCode.Failed;
        }
        catch (JsonException e)
        {
            return Fail($"{path.Name} cannot be read: {e.Message}");
        }
        catch (Exception e)
        {
            // Whatever it is ends this run; the owner gets the message, the log the rest.
            Console.Error.WriteLine(e);
            return Fail(e.Message.Split('\n')[0]);
        }

        int Fail(string message)
        {
            events.Write(TrainingEventType.Failed, message, TrainingEventLevel.Error);
            return ExitCode.Failed;
        }
    }

    private static void Obey(TrainerControl control)
    {
        while (Console.In.ReadLine() is { } line)
        {
            switch (line.Trim())
            {
                case "cancel":
                    control.Stop(StopRequest.Cancel);
                    break;
                case "pause":
                    control.Stop(StopRequest.Pause);
                    break;
            }
        }

        control.Stop(StopRequest.Abandon);
    }

    private static void Print(TrainingEvent written) =>
        Console.WriteLine(written.Level is TrainingEventLevel.Info ? written.Message : $"{written.Level.ToString().ToLowerInvariant()}: {written.Message}");
}
